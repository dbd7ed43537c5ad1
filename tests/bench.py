"""`millrace bench` beside a real broker, which is stopped and deleted afterwards: ./bench calls this. With --all, also how
long an event takes until it can be seen, when 10,000 come a second.

bench.py BINARY KAFKA_JARS [arguments of `millrace bench` …]
"""

import os
import subprocess
import sys
import tempfile

from kafka_broker import start_kafka

binary, jars, *arguments = sys.argv[1:]
binary = os.path.abspath(binary)
with tempfile.TemporaryDirectory(prefix="millrace-bench-") as folder:
    broker, address = start_kafka(jars, folder)
    try:
        subprocess.run([binary, "bench", "--kafka", address, *arguments], check=True)
        if "--all" in arguments:
            print("\n10,000 events/s for a minute, a checkpoint every 500 ms:", flush=True)
            paced = ["--rate", "10000", "--duration", "60s", "--checkpoint-interval", "500ms"]
            subprocess.run([binary, "demo", "--kafka", address, *paced], cwd=folder, check=True)
    except subprocess.CalledProcessError as failed:
        sys.exit(failed.returncode)
    finally:
        broker.terminate()
        broker.wait()
