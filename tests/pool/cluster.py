"""A Ray cluster on this machine with pools on it, as a process that ends with its stdin.

It takes lines `NAME ENGINE REPLICAS SETS` (an engine of `engines.py`, at `/NAME`),
answers `ready` once all replicas are new, and ends with its stdin. No replica
needs a GPU.
"""

from __future__ import annotations

import os
import sys
import tempfile

os.environ |= {  # before Ray looks
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",  # or it writes a token into the home folder
    "OMP_NUM_THREADS": "1",
}

import ray  # noqa: E402
from ray import serve  # noqa: E402

from backends.local.pool.serving import deployment  # noqa: E402
from tests.pool import engines  # noqa: E402

QUIET = {"log_level": "ERROR", "enable_access_log": False}


def main(port: int) -> None:
    """Start, and follow stdin to its end."""
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:  # paths of sockets: short
        start(folder, port)
        for line in sys.stdin:
            deploy(*line.split())
            print("ready", flush=True)
        ray.shutdown()


def start(folder: str, port: int) -> None:
    """Ray on loopback, without its dashboard."""
    ray.init(
        num_cpus=8,  # that it believes in, not that it takes
        include_dashboard=False,
        object_store_memory=80 * 2**20,
        log_to_driver=False,
        logging_level="ERROR",
        _node_ip_address="127.0.0.1",
        _temp_dir=folder,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config=QUIET)


def deploy(name: str, engine: str, replicas: str, sets: str) -> None:
    """Once more is another version for Serve, whose replicas take over one by one."""
    replica = deployment.options(
        num_replicas=int(replicas),
        ray_actor_options={"num_cpus": 0, "num_gpus": 0},
        graceful_shutdown_wait_loop_s=0.1,
        health_check_period_s=1,
    )
    app = replica.bind(getattr(engines, engine), int(sets))
    serve.run_many([serve.RunTarget(app, name=name, route_prefix=f"/{name}")])


if __name__ == "__main__":
    main(int(sys.argv[1]))
