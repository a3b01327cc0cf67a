"""The part of Kubernetes' API that jobs use, with pods that are processes of this machine.

It refuses what a cluster refuses: requests that do not fit the schema (kubernetes-validate) or that
profiles/kubernetes/salsa.yaml does not allow, GPUs without a limit, and the log of a previous run before a container's
first. A pod's processes see only the environment that its job names. Nothing is isolated: a volume is a folder at its
own path.
"""

import base64
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
import yaml

SALSA = Path(__file__).parents[2] / "profiles/kubernetes/salsa.yaml"
VERBS = {"POST": "create", "GET": "get", "DELETE": "delete"}
CPUS, GPUS = 8.0, 2
PATH = re.compile(r"/apis?/(?:(\w+)/)?v1/namespaces/(\w+)/(\w+)(?:/([\w-]+))?(?:/(\w+))?")
IMAGE = {"PYTHONPATH": "."}  # what the Dockerfile sets


class Refused(Exception):
    def __init__(self, status: HTTPStatus, message: str):
        super().__init__(message)
        self.status = status


class Pod:
    """One container that runs once."""

    def __init__(self, job: dict[str, Any], folder: Path):
        self.job, self.folder = job, folder
        self.name = f"{job['metadata']['name']}-x7x7x"
        [self.container] = job["spec"]["template"]["spec"]["containers"]
        self.process: subprocess.Popen[bytes] | None = None
        self.exit_code: int | None = None
        self.placed = self.deleted = False

    @property
    def asked(self) -> dict[str, str]:
        return self.container["resources"]["requests"]

    @property
    def cpus(self) -> float:
        return float(self.asked["cpu"].removesuffix("m")) / 1000

    @property
    def gpus(self) -> int:
        return int(self.asked.get("nvidia.com/gpu", 0))

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    def run(self, secrets: dict[str, dict[str, str]]) -> None:
        environment = {"PATH": os.defpath, **IMAGE, "OMP_NUM_THREADS": "1"}
        for variable in self.container.get("env", []):
            key = variable["valueFrom"]["secretKeyRef"]
            environment[variable["name"]] = base64.b64decode(secrets[key["name"]][key["key"]]).decode()
        with tempfile.TemporaryDirectory() as working, self.log.open("wb") as log:
            command = [*self.container["command"], *self.container["args"]]
            if not self.deleted:
                self.process = subprocess.Popen(
                    command, cwd=working, env=environment, stdout=log, stderr=log, start_new_session=True
                )
                code = self.process.wait()
                self.exit_code = code if code >= 0 else 128 - code

    def kill(self) -> None:
        """Kill the pod, as if its node had failed."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)


class Cluster:
    """A cluster behind a kubeconfig file in its folder."""

    def __init__(self, folder: Path, volume: Path):
        self.folder, self.volume = folder, volume
        self.lock = threading.Lock()
        self.secrets: dict[str, dict[str, str]] = {}
        self.pods: dict[str, Pod] = {}  # by the job
        self.sent: list[Pod] = []  # also those that are deleted
        manifests = [each for each in yaml.safe_load_all(SALSA.read_text()) if each]
        for manifest in manifests:
            kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
        self.claims = {each["metadata"]["name"] for each in manifests if each["kind"] == "PersistentVolumeClaim"}
        [role] = [each for each in manifests if each["kind"] == "Role"]
        self.allowed = {
            (group, resource, verb)
            for rule in role["rules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"cluster": self}))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        (folder / "kubeconfig").write_text(yaml.safe_dump(self._kubeconfig()))

    def _kubeconfig(self) -> dict[str, Any]:
        address = f"http://127.0.0.1:{self.server.server_address[1]}"
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": address}}],
            "users": [{"name": "test", "user": {"token": "test"}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }

    def close(self) -> None:
        self.delete_all()
        self.server.shutdown()
        self.server.server_close()

    def delete_all(self) -> None:
        """Like `kubectl delete jobs --selector app=snakemake`."""
        for name, pod in list(self.pods.items()):
            if pod.job["metadata"]["labels"] == {"app": "snakemake"}:
                self.delete(name)

    def delete(self, name: str) -> None:
        pod = self.pods.pop(name)
        pod.deleted = True
        pod.kill()

    def running(self) -> list[Pod]:
        return [pod for pod in self.pods.values() if pod.placed and pod.exit_code is None]

    def send(self, job: dict[str, Any]) -> None:
        self._check(job)
        pod = Pod(job, self.folder)
        self.pods[job["metadata"]["name"]] = pod
        self.sent.append(pod)
        threading.Thread(target=self._schedule, args=[pod], daemon=True).start()

    def _check(self, job: dict[str, Any]) -> None:
        whole = {"apiVersion": "batch/v1", "kind": "Job", **job}
        try:
            kubernetes_validate.validate(whole, kubernetes_validate.latest_version(), strict=True)
        except kubernetes_validate.ValidationError as error:
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, error.message) from error
        spec = job["spec"]["template"]["spec"]
        [container] = spec["containers"]
        requests, limits = (container["resources"].get(kind, {}) for kind in ("requests", "limits"))
        for name in {*requests, *limits}:
            if name.endswith("/gpu") and requests.get(name) != limits.get(name):
                raise Refused(
                    HTTPStatus.UNPROCESSABLE_ENTITY, f"{name}: Limit must be set for non overcommitable resources"
                )
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        mounts = {mount["mountPath"]: volumes.get(mount["name"]) for mount in container["volumeMounts"]}
        if None in mounts.values():
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "volumeMounts: Not found")
        claimed = [mounts[str(self.volume)]["persistentVolumeClaim"]["claimName"]] if str(self.volume) in mounts else []
        if not self.claims.issuperset(claimed) or not claimed:
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, f"nothing is mounted at {self.volume}")

    def _schedule(self, pod: Pod) -> None:
        while True:
            with self.lock:
                running = self.running()
                cpus, gpus = sum(each.cpus for each in running), sum(each.gpus for each in running)
                if cpus + pod.cpus <= CPUS and gpus + pod.gpus <= GPUS:
                    pod.placed = True
                    break
            time.sleep(0.2)
        pod.run(self.secrets)


class Handler(BaseHTTPRequestHandler):
    cluster: Cluster

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_DELETE = do_GET

    def log_message(self, *_: Any) -> None:
        """Log nothing."""

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or "{}")
        try:
            status, answer = HTTPStatus.OK, self._done(body)
        except Refused as error:
            status = error.status
            answer = {"kind": "Status", "apiVersion": "v1", "code": status.value, "message": str(error)}
        except KeyError as error:
            status, answer = HTTPStatus.NOT_FOUND, {"kind": "Status", "code": 404, "message": f"{error} not found"}
        data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _done(self, body: dict[str, Any]) -> dict[str, Any] | str:
        """Do what a request asks for, if the role of profiles/kubernetes/salsa.yaml allows it."""
        url = urlsplit(self.path)
        found = PATH.fullmatch(url.path)
        if found is None:
            raise Refused(HTTPStatus.NOT_FOUND, self.path)
        group, _, resource, name, part = found.groups()
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        verb = "list" if self.command == "GET" and name is None else VERBS[self.command]
        of = f"{resource}/{part}" if part else resource
        if (group or "", of, verb) not in self.cluster.allowed:
            raise Refused(HTTPStatus.FORBIDDEN, f"cannot {verb} resource {of}")
        cluster = self.cluster
        match verb, of:
            case "create", "secrets":
                cluster.secrets[body["metadata"]["name"]] = body["data"]
            case "delete", "secrets":
                del cluster.secrets[name]
            case "create", "jobs":
                cluster.send(body)
            case "delete", "jobs":
                cluster.delete(name)
            case "get", "jobs/status":
                return status_of(cluster.pods[name])
            case "list", "pods":
                job = query["labelSelector"].removeprefix("job-name=")
                return {"items": [listed(cluster.pods[job])] if job in cluster.pods else []}
            case "delete", "pods":
                [pod] = [pod for pod in cluster.pods.values() if pod.name == name]
                pod.kill()
            case "get", "pods/log":
                if query.get("previous", "false").lower() == "true":
                    raise Refused(HTTPStatus.BAD_REQUEST, f"previous terminated container in pod {name} not found")
                [pod] = [pod for pod in cluster.pods.values() if pod.name == name]
                return pod.log.read_text()
            case _:
                raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, f"{verb} {of}")
        return body


def status_of(pod: Pod) -> dict[str, Any]:
    done = {} if pod.exit_code is None else {"failed" if pod.exit_code else "succeeded": 1}
    return {**pod.job, "status": done}


def listed(pod: Pod) -> dict[str, Any]:
    if pod.exit_code is not None:
        state = {"terminated": {"exitCode": pod.exit_code}}
    else:
        state = {"running": {}} if pod.process is not None else {"waiting": {}}
    container = {"name": "snakemake", "state": state, "image": "", "imageID": "", "ready": True, "restartCount": 0}
    return {"metadata": {"name": pod.name}, "spec": {"containers": []}, "status": {"containerStatuses": [container]}}
