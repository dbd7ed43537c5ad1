"""`millrace bench` beside a real broker, which is stopped and deleted afterwards: ./bench calls this.

bench.py BINARY KAFKA_JARS [arguments of `millrace bench` …]
"""

import subprocess
import sys
import tempfile

from kafka_broker import start_kafka

binary, jars, *arguments = sys.argv[1:]
with tempfile.TemporaryDirectory(prefix="millrace-bench-") as folder:
    broker, address = start_kafka(jars, folder)
    try:
        sys.exit(subprocess.run([binary, "bench", "--kafka", address, *arguments]).returncode)
    finally:
        broker.terminate()
        broker.wait()
