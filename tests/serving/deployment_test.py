"""The files of tools/serving: each parses as what it is, and all name the same model, ports and paths."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

yaml = pytest.importorskip("yaml", reason="needs the extra `dev`")
FOLDER = pathlib.Path(__file__).parents[2] / "tools" / "serving"

import versions  # noqa: E402 - conftest.py puts tools/serving on the path

MODEL, GRPC, REST = "robgan", 8500, 8501


def load(name):
    return yaml.safe_load((FOLDER / name).read_text())


def parse_models_config(text):
    config = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2", reason="needs `serving`")
    (model,) = text_format.Parse(text, config.ModelServerConfig()).model_config_list.config
    return model


def message_class(name, fields):
    """A message class out of its fields, for protos that tensorflow-serving-api does not bring."""
    pool = descriptor_pool.DescriptorPool()
    file = descriptor_pb2.FileDescriptorProto(name="made.proto", package="made", syntax="proto3")
    for message, members in {**fields, "Int64Value": {"value": (1, "int64", False)}}.items():
        made = file.message_type.add(name=message)
        for field, (number, kind, repeated) in members.items():
            added = made.field.add(name=field, number=number, label=3 if repeated else 1)
            added.type = {"int64": 3, "bool": 8, "string": 9}.get(kind, 11)
            if added.type == 11:
                added.type_name = f".made.{kind}"
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"made.{name}"))


# From session_bundle_config.proto and monitoring_config.proto of TF Serving.
INTEGERS = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")
BATCHING = {
    "BatchingParameters": {
        **{name: (number, "Int64Value", False) for number, name in enumerate(INTEGERS, 1)},
        "allowed_batch_sizes": (6, "int64", True),
        "pad_variable_length_inputs": (7, "bool", False),
    }
}
MONITORING = {
    "MonitoringConfig": {"prometheus_config": (1, "PrometheusConfig", False)},
    "PrometheusConfig": {"enable": (1, "bool", False), "path": (2, "string", False)},
}


def batching():
    text = (FOLDER / "config/batching.config").read_text()
    return text_format.Parse(text, message_class("BatchingParameters", BATCHING)())


def monitoring():
    text = (FOLDER / "config/monitoring.config").read_text()
    return text_format.Parse(text, message_class("MonitoringConfig", MONITORING)()).prometheus_config


def containers():
    """(name of the file, command line, container ports, {mount path: read only}) of all model servers."""
    found = []
    compose = load("docker-compose.yml")["services"]["model-server"]
    gpu = load("docker-compose.gpu.yml")["services"]["model-server"]
    # Before a colon may stand `${EXPORT:?...}`, so the split is from the right.
    mounts = {one.rsplit(":", 2)[1]: one.rsplit(":", 2)[2] == "ro" for one in compose["volumes"]}
    ports = [int(one.rsplit(":", 1)[1]) for one in compose["ports"]]
    found.append(("docker-compose.yml", compose["command"], ports, mounts))
    found.append(("docker-compose.gpu.yml", gpu["command"], ports, mounts))
    container = deployment_container(load("kubernetes/cpu/deployment.yaml"))
    patched = deployment_container(gpu_deployment())
    for name, one in (("deployment.yaml", container), ("gpu", patched)):
        mounts = {mount["mountPath"]: mount["readOnly"] for mount in one["volumeMounts"]}
        found.append((name, one["args"], [port["containerPort"] for port in one["ports"]], mounts))
    return found


def deployment_container(deployment):
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return container


def gpu_deployment():
    """The Deployment with the JSON patch of kubernetes/gpu."""
    deployment = load("kubernetes/cpu/deployment.yaml")
    (patch,) = load("kubernetes/gpu/kustomization.yaml")["patches"]
    assert (patch["target"]["kind"], patch["target"]["name"]) == (deployment["kind"], deployment["metadata"]["name"])
    for step in yaml.safe_load(patch["patch"]):
        *parents, last = [part.replace("~1", "/") for part in step["path"].split("/")[1:]]
        place = deployment
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place[part]
        if isinstance(place, list):
            assert (step["op"], last) == ("add", "-")
            place.append(step["value"])
        else:
            assert step["op"] == "add" or last in place
            place[last] = step["value"]
    return deployment


def test_models_config_labels_versions_that_it_serves():
    model = parse_models_config((FOLDER / "config/models.config").read_text())
    assert (model.name, model.model_platform) == (MODEL, "tensorflow")
    assert set(model.version_labels) == {"stable", "canary"}
    assert set(model.version_labels.values()) <= set(model.model_version_policy.specific.versions)


def test_models_config_is_what_versions_py_writes():
    assert (FOLDER / "config/models.config").read_text() == versions.render(MODEL, "/models/robgan", 1, 1)


def test_batching_config_obeys_the_rules_of_the_server():
    config = batching()
    allowed = list(config.allowed_batch_sizes)
    assert allowed == sorted(set(allowed)) and allowed[-1] == config.max_batch_size.value
    assert config.num_batch_threads.value >= 1 and config.batch_timeout_micros.value > 0


def test_prometheus_reads_where_the_server_writes():
    assert monitoring().enable
    (job,) = load("config/prometheus.yml")["scrape_configs"]
    assert job["metrics_path"] == monitoring().path
    services = load("docker-compose.yml")["services"]
    (target,) = job["static_configs"][0]["targets"]
    host, port = target.split(":")
    assert host in services and int(port) == REST
    annotations = load("kubernetes/cpu/deployment.yaml")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] == monitoring().path
    assert annotations["prometheus.io/port"] == str(REST)
    (flag,) = [flag for flag in services["prometheus"]["command"] if flag.startswith("--config.file=")]
    assert flag == "--config.file=/config/prometheus.yml"


@pytest.mark.parametrize("case", containers(), ids=lambda case: case[0])
def test_every_model_server_has_the_same_ports_and_files_that_are_there(case):
    _, command, ports, mounts = case
    flags = dict(flag.removeprefix("--").split("=", 1) for flag in command)
    assert (int(flags["port"]), int(flags["rest_api_port"])) == (GRPC, REST) and set(ports) == {GRPC, REST}
    base_path = parse_models_config((FOLDER / "config/models.config").read_text()).base_path
    assert mounts == {base_path: True, "/config": True}
    for flag, path in flags.items():
        if flag.endswith("_file"):
            assert path.startswith("/config/") and (FOLDER / "config" / path.removeprefix("/config/")).is_file(), path
    assert flags["allow_version_labels_for_unavailable_models"] == "true"
    assert ("batching_parameters_file" in flags) == (flags.get("enable_batching") == "true")


def test_kustomize_names_all_files_and_the_config_map_that_is_mounted():
    folder = FOLDER / "kubernetes" / "cpu"
    resources = load("kubernetes/cpu/kustomization.yaml")["resources"]
    assert (folder / resources[0]).resolve() == FOLDER / "config"
    assert {path.name for path in folder.glob("*.yaml")} == {*resources[1:], "kustomization.yaml"}
    assert load("kubernetes/gpu/kustomization.yaml")["resources"] == ["../cpu"]
    (generator,) = load("config/kustomization.yaml")["configMapGenerator"]
    assert all((FOLDER / "config" / file).is_file() for file in generator["files"])
    volumes = load("kubernetes/cpu/deployment.yaml")["spec"]["template"]["spec"]["volumes"]
    by_name = {volume["name"]: volume for volume in volumes}
    assert by_name["config"]["configMap"]["name"] == generator["name"]
    claim = load("kubernetes/cpu/models-claim.yaml")["metadata"]["name"]
    assert by_name["models"]["persistentVolumeClaim"]["claimName"] == claim
    for name in ("inference_service.yaml", "inference_service.gpu.yaml"):
        assert load(f"kserve/{name}")["spec"]["predictor"]["model"]["storageUri"] == f"pvc://{claim}/"
    # What the command lines read must be in the map.
    for name, command, *_ in containers():
        files = re.findall(r"=/config/(\S+)", " ".join(command))
        assert set(files) <= set(generator["files"]), name


def test_deployment_service_and_autoscaler_belong_together():
    deployment, service = load("kubernetes/cpu/deployment.yaml"), load("kubernetes/cpu/service.yaml")
    autoscaler = load("kubernetes/cpu/autoscaler.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels == {"app": MODEL}
    container = deployment_container(deployment)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {port["targetPort"]: port["port"] for port in service["spec"]["ports"]} == ports
    reference = autoscaler["spec"]["scaleTargetRef"]
    assert (reference["kind"], reference["name"]) == (deployment["kind"], deployment["metadata"]["name"])
    assert "cpu" in container["resources"]["requests"], "the autoscaler's percentage is one of this request"
    for probe in ("startupProbe", "readinessProbe"):
        get = container[probe]["httpGet"]
        assert get == {"path": f"/v1/models/{MODEL}/labels/stable", "port": "rest"}


@pytest.mark.parametrize("name", ["inference_service.yaml", "inference_service.gpu.yaml"])
def test_kserve_serves_under_the_same_name_with_the_same_server(name):
    service = load(f"kserve/{name}")
    assert (service["kind"], service["metadata"]["name"]) == ("InferenceService", MODEL)
    image = load("docker-compose.gpu.yml" if "gpu" in name else "docker-compose.yml")
    version = service["spec"]["predictor"]["model"]["runtimeVersion"]
    assert image["services"]["model-server"]["image"] == f"tensorflow/serving:{version}"
    limits = service["spec"]["predictor"]["model"]["resources"]["limits"]
    assert ("nvidia.com/gpu" in limits) == ("gpu" in name)


def test_cpu_and_gpu_differ_in_image_batching_and_device_alone():
    cpu = load("docker-compose.yml")["services"]["model-server"]
    gpu = load("docker-compose.gpu.yml")["services"]["model-server"]
    more = ["--enable_batching=true", "--batching_parameters_file=/config/batching.config"]
    assert gpu["command"] == cpu["command"] + more and gpu["image"] == cpu["image"] + "-gpu"
    plain, patched = (
        deployment_container(load("kubernetes/cpu/deployment.yaml")),
        deployment_container(gpu_deployment()),
    )
    assert plain["image"] == cpu["image"] and patched["image"] == gpu["image"]
    assert sorted(patched["args"]) == sorted(gpu["command"]) and sorted(plain["args"]) == sorted(cpu["command"])
    assert patched["resources"]["limits"]["nvidia.com/gpu"] == 1


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not on the PATH")
@pytest.mark.parametrize("folder", ["cpu", "gpu"])
def test_kubectl_can_build_it(folder):
    command = ["kubectl", "kustomize", str(FOLDER / "kubernetes" / folder)]
    built = subprocess.run(command, capture_output=True, text=True, check=True)
    kinds = {one["kind"] for one in yaml.safe_load_all(built.stdout)}
    assert kinds == {"ConfigMap", "Deployment", "HorizontalPodAutoscaler", "PersistentVolumeClaim", "Service"}


# ------------------------------------------------------------------------------------------------------- versions.py


def test_versions_py_writes_labels_and_all_versions_that_are_needed(tmp_path):
    out = tmp_path / "models.config"
    for version in (1, 2, 3):
        (tmp_path / "export" / str(version)).mkdir(parents=True)
        (tmp_path / "export" / str(version) / "saved_model.pb").write_text("")
    arguments = ["--stable=1", "--canary=3", "--load=2", f"--export={tmp_path / 'export'}", f"--out={out}"]
    assert versions.main(arguments) == 0
    model = parse_models_config(out.read_text())
    assert dict(model.version_labels) == {"stable": 1, "canary": 3}
    assert list(model.model_version_policy.specific.versions) == [1, 2, 3]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["models.config"]


def test_versions_py_refuses_a_version_that_is_not_there(tmp_path):
    out = tmp_path / "models.config"
    command = [sys.executable, str(FOLDER / "versions.py"), "--stable=7", f"--export={tmp_path}", f"--out={out}"]
    failed = subprocess.run(command, capture_output=True, text=True)
    assert (failed.returncode, failed.stderr) == (2, f"error: there is no version 7 in {tmp_path}\n")
    assert not out.exists()
