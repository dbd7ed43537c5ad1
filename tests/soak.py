"""The main job for as long as one likes: ./soak calls this.

soak.py BINARY KAFKA_JARS SECONDS RATE
"""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request

from kafka_broker import free_port, start_kafka, until

OUTPUT = os.path.abspath("soak-output")
JOB = os.path.abspath("jobs/eventhubs-databricks-delta/job.sql")
PARTITIONS = 8
# The main job's table: target_file_size is not set.
TARGET = 128 << 20
SAMPLE_SECONDS = 5

started = []


def start(command, log, **variables):
    with open(os.path.join(OUTPUT, log), "w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, **variables}, cwd=OUTPUT)
    started.append(process)
    return process


class Table:
    """The files that a table consists of, by its log's entries, each read once."""

    def __init__(self, folder):
        self.log = os.path.join(folder, "_delta_log")
        self.version = -1
        self.live = {}

    def read_on(self):
        while os.path.exists(path := os.path.join(self.log, f"{self.version + 1:020}.json")):
            self.version += 1
            with open(path) as entry:
                actions = [json.loads(line) for line in entry]
            for action in actions:
                if "remove" in action:
                    self.live.pop(action["remove"]["path"], None)
            for action in actions:
                if "add" in action:
                    self.live[action["add"]["path"]] = action["add"]["size"]


def status(address):
    with urllib.request.urlopen(f"{address}/status", timeout=10) as answer:
        return json.load(answer)


def megabytes_of(process):
    with open(f"/proc/{process.pid}/status") as file:
        return int(re.search(r"VmRSS:\s*(\d+)", file.read())[1]) / 1024


def sample(job, address, table, begun):
    table.read_on()
    now = status(address)
    sizes = table.live.values()
    return {
        "seconds": round(time.time() - begun),
        "rss_mb": round(megabytes_of(job), 1),
        "lag": sum(split["lag"] for split in now["splits"].values()),
        "records": sum(split["records"] for split in now["splits"].values()),
        "entry": now["checkpoints"]["entry"],
        "files": len(sizes),
        "table_mb": round(sum(sizes) / 2**20, 1),
        "mb_in_large_files": round(sum(size for size in sizes if size >= TARGET / 2) / 2**20, 1),
    }


def judge(samples, rate):
    """What a long run must show; each with whether it does, None where the run was too short to tell."""
    quarter = max(1, len(samples) // 4)
    mean = lambda part: sum(s["rss_mb"] for s in part) / len(part)
    second, last = mean(samples[quarter : 2 * quarter] or samples), mean(samples[-quarter:])
    lag, end = max(s["lag"] for s in samples[-quarter:]), samples[-1]
    # The window of the deduplication fills for ten minutes.
    long_enough = samples[quarter]["seconds"] >= 600
    growth = (last - second) / second
    large, whole = end["mb_in_large_files"], end["table_mb"]
    yield f"memory: {second:.0f} MB in the second quarter, {last:.0f} MB in the last ({growth:+.0%})", (
        growth < 0.1 if long_enough else None
    )
    yield f"lag in the last quarter: at most {lag} records, {lag / rate:.1f} s", lag / rate < 5
    yield f"files: {end['files']} for {whole:.0f} MB, {large:.0f} MB of it in files of half the target size or more", (
        large / whole > 0.8 if whole > 8 * TARGET / 2**20 else None
    )


def main(binary, jars, seconds, rate):
    binary, seconds, rate = os.path.abspath(binary), int(seconds), float(rate)
    shutil.rmtree(OUTPUT, ignore_errors=True)
    os.makedirs(OUTPUT)
    broker, kafka = start_kafka(
        jars,
        OUTPUT,
        num_partitions=PARTITIONS,
        # What was read long ago makes room: the disk holds an hour at any rate.
        log_retention_bytes=256 << 20,
        log_segment_bytes=64 << 20,
        log_retention_check_interval_ms=30_000,
    )
    started.append(broker)
    to = ["--to", "kafka", "--kafka", kafka, "--topic", "streaming"]
    start([binary, "simulate", *to, "--rate", str(rate), "--duration", f"{seconds}s"], "simulator.log")
    until("the simulator sends", lambda: "messages" in open(os.path.join(OUTPUT, "simulator.log")).read())
    folder = os.path.join(OUTPUT, "table")
    job = start([binary, "run", JOB, "--state", os.path.join(OUTPUT, "state")], "job.log", KAFKA=kafka, TOPIC="streaming", TABLE=folder)
    listen = os.path.join(OUTPUT, "state", "listen")
    until("the job listens", lambda: os.path.exists(listen))
    with open(listen) as file:
        address = "http://" + file.read().strip()
    begun, table, samples = time.time(), Table(folder), []
    until("the job reads", lambda: status(address)["splits"])
    with open(os.path.join(OUTPUT, "samples.csv"), "w", newline="") as file:
        while time.time() - begun < seconds:
            time.sleep(SAMPLE_SECONDS)
            if job.poll() is not None:
                raise SystemExit(f"the job ended with {job.returncode}; see {OUTPUT}/job.log")
            samples.append(sample(job, address, table, begun))
            if len(samples) == 1:
                writer = csv.DictWriter(file, samples[0])
                writer.writeheader()
            writer.writerow(samples[-1])
            file.flush()
            if len(samples) % 12 == 0:
                print(" ".join(f"{name} {value}" for name, value in samples[-1].items()), file=sys.stderr)
    job.send_signal(signal.SIGTERM)
    code = job.wait(timeout=120)
    verdicts = list(judge(samples, rate)) + [(f"the job's end at SIGTERM: exit code {code}", code == 0)]
    words = {True: "ok  ", False: "BAD ", None: "    "}
    for said, holds in verdicts:
        print(words[holds], said, "" if holds is not None else "(the run is too short to judge it)")
    print("samples:", os.path.join(OUTPUT, "samples.csv"))
    return 1 if any(holds is False for _, holds in verdicts) else 0


if __name__ == "__main__":
    try:
        code = main(*sys.argv[1:])
    finally:
        for process in started:
            process.kill()
    sys.exit(code)
