"""A Kafka broker of one node, from its jars, on free ports: for ./soak and ./bench."""

import os
import socket
import subprocess
import time


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def start_kafka(jars, folder, **more):
    """Starts a broker that keeps all it has in the folder; returns its process and its address once it answers.

    more: settings of the broker, with _ for each dot.
    """
    port, controller = free_port(), free_port()
    settings = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "log.dirs": os.path.join(folder, "kafka"),
        **{name.replace("_", "."): value for name, value in more.items()},
    }
    properties = os.path.join(folder, "server.properties")
    with open(properties, "w") as file:
        file.writelines(f"{name}={value}\n" for name, value in settings.items())
    java = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-cp", os.path.join(os.path.abspath(jars), "*")]
    tool = [*java, "kafka.tools.StorageTool", "format", "-t", "bWlsbHJhY2UtdGVzdHMtMA", "-c", properties]
    subprocess.run(tool, check=True, capture_output=True)
    with open(os.path.join(folder, "kafka.log"), "w") as log:
        broker = subprocess.Popen([*java, "kafka.Kafka", properties], stdout=log, stderr=log, cwd=folder)
    until("Kafka answers", lambda: answers(port))
    return broker, f"127.0.0.1:{port}"


def answers(port):
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def until(what, holds, patience=120):
    for _ in range(patience * 10):
        if holds():
            return
        time.sleep(0.1)
    raise SystemExit(f"{patience} s without: {what}")
