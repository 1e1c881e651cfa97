"""Settings are complete, frozen, and say which key is wrong and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from flows.configuration import load_guard_settings, load_settings
from flows.processes.environment import OFFLINE
from tasks.core.errors import CertiflowError
from tasks.core.execution.asking import Resources
from tasks.settings import (
    DATASETS,
    GlobalSettings,
    RadiusSettings,
    Settings,
    VerificationSettings,
    decimal,
)
from tests.flow_project import CONF


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(CONF.glob("*.yaml")) if path.stem not in {"guard", "mnist_study"}],
    ids=lambda path: path.stem,
)
def test_every_shipped_file_is_valid(path: Path) -> None:
    settings, notes = load_settings(path)
    assert notes == []
    assert settings.data.dataset in DATASETS


def test_the_guard_s_shipped_file_is_valid() -> None:
    settings = load_guard_settings(CONF / "guard.yaml", [], {"port": 0})
    assert (settings.epsilon, settings.port) == (0.1, 0)
    assert settings.epsilon in settings.radii
    with pytest.raises(CertiflowError, match="unknown key 'polcy': did you mean 'policy'"):
        load_guard_settings(CONF / "guard.yaml", ["polcy=flag"], {})


def test_reference_experiment() -> None:
    settings, _ = load_settings(CONF / "mnist.yaml")
    assert settings.data.fallback is None
    assert settings.training.hidden == (128,)
    assert settings.attack.epsilons == (0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
    assert settings.verification.epsilons == (0.005, 0.01, 0.02, 0.05)
    assert load_settings(CONF / "default.yaml")[0].data.fallback == "digits"


def test_settings_survive_their_own_yaml(tmp_path: Path) -> None:
    settings, _ = load_settings(CONF / "smoke.yaml")
    text = yaml.safe_dump(settings.model_dump(mode="json"))
    assert load_settings(written(tmp_path, text))[0] == settings


@pytest.mark.parametrize(("dataset", "name"), [("credit", "credit"), ("a/meters.yaml", "meters")])
def test_how_a_table_moves(dataset: str, name: str, tmp_path: Path) -> None:
    text = f"data: {{dataset: {dataset}, scale: std, category_changes: 2, positive: 1}}"
    settings, _ = load_settings(written(tmp_path, text))
    assert settings.data.positive == "1"
    assert (settings.data.scale, settings.data.category_changes) == ("std", 2)
    assert settings.data.name == name


def test_override(tmp_path: Path) -> None:
    overrides = ["verification.samples=50", "training.hidden=[64, 32]", "seed=3"]
    settings, _ = load_settings(written(tmp_path, ""), overrides)
    assert settings.verification.samples == 50
    assert settings.training.hidden == (64, 32)
    assert settings.seed == 3


def refused(text: str, folder: Path, *overrides: str) -> str:
    with pytest.raises(CertiflowError) as raised:
        load_settings(written(folder, text), overrides)
    return str(raised.value)


def test_what_comes_from_the_command_line_is_said_of_it(tmp_path: Path) -> None:
    said = refused("training: {epochs: 0}", tmp_path, "verification.epsilons=[0.1, -1]")
    file, override = said.split("; ")
    assert file.startswith(f"{tmp_path}")
    assert "training.epochs is 0" in file
    assert override.startswith("--set verification.epsilons=[0.1, -1]: verification.epsilons.1 is")


def test_of_a_list_with_a_wrong_item_it_is_not_said_that_it_is_empty(tmp_path: Path) -> None:
    said = refused("verification: {epsilons: [-0.1]}", tmp_path)
    assert "epsilons.0 is -0.1" in said
    assert "at least 1 item" not in said
    assert "at least 1 item" in refused("verification: {epsilons: []}", tmp_path)


def test_what_is_allowed_is_said_once_and_a_service_is_sent_to_its_command(tmp_path: Path) -> None:
    said = refused("training: {epoch: 3, decay: 2}\nnothing: 1", tmp_path)
    said_of_override = refused("", tmp_path, "nothing.here=1")
    assert said_of_override.startswith("--set nothing.here=1: unknown key 'nothing': allowed")
    assert said.count("allowed are") == 2  # in training, and at the top
    said = refused("model: models:/certiflow-mnist@champion\nepsilon: 0.1", tmp_path)
    assert "certiflow guard --conf" in said
    assert "allowed are" not in said
    assert "unknown key 'epsilon'" in refused("epsilon: 0.1", tmp_path)
    assert "unknown key 'model'" in refused("", tmp_path, "model=x.onnx")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trainin: {}", r"unknown key 'trainin': did you mean 'training'\? allowed are seed, data"),
        ("training: {epoch: 3}", r"unknown key 'training.epoch': did you mean 'epochs'\?"),
        ("training: {epochs: many}", r"training.epochs is 'many': input should be a valid integer"),
        ("training: {epochs: 0}", r"training.epochs is 0: input should be greater than or equal"),
        ("attack: {epsilons: [0.1, -0.1]}", r"attack.epsilons.1 is -0.1: .*greater than or equal"),
        ("attack: {epsilons: [.nan]}", r"attack.epsilons.0 is nan"),
        ("attack: {epsilons: []}", r"attack.epsilons is \[\]"),
        ("verification: {epsilons: [0]}", r"verification.epsilons.0 is 0: .*greater than 0"),
        ("data: {dataset: cifar}", r"data.dataset is 'cifar': expected mnist, fashion_mnist"),
        ("data: {scale: log}", r"data.scale is 'log': .*'range'"),
        ("data: {scale: std}", r"data: scale is 'std' .*, but mnist is images"),
        ("data: {dataset: x.npz, category_changes: 1}", r"category_changes is 1, but x.npz is im"),
        ("data: {dataset: credit, category_changes: -1}", r"data.category_changes is -1"),
        ("data: {dataset: x.npz, completions: {a: 1}}", r"has a, but x.npz has no empty cells"),
        ("data: {dataset: credit, completions: {a: 1}}", r"has a, but credit has no empty cells"),
        ("data: {dataset: x.yaml, completions: {a: yes}}", r"data.completions.a is True: put it"),
        ("verification: {engine: magic}", r"verification.engine is 'magic': .*'ladder'"),
        ("training: {defence: pgd}", r"defence 'pgd' needs an epsilon"),
        ("training: {epsilon: 0.1}", r"training: defence 'none' takes no epsilon: leave it out"),
        ("training: {defence: ibp, epsilon: 0.6}", r"training.epsilon is 0.6: .*equal to 0.5"),
        ("training: {defence: ibp, epsilon: 0}", r"training.epsilon is 0: .*greater than 0"),
        ("training: {training_epsilon: 0.2}", r"training_epsilon is 0.2: .*leave it out without"),
        (
            "training: {defence: sabr, epsilon: 0.1, subselection_ratio: 0}",
            r"training.subselection_ratio is 0: .*greater than 0",
        ),
        ("training: {defence: magic, epsilon: 0.1}", r"training.defence is 'magic': .*'none'"),
        (
            "training: {defence: ibp, epsilon: 0.1, epochs: 5, warmup_epochs: 1, ramp_epochs: 5}",
            r"training: warmup_epochs 1 \+ ramp_epochs 5 are longer than .*of 5 epochs.*shorten",
        ),
        (
            "training: {defence: pgd, epsilon: 0.1, robust_weight: 2}",
            r"robust_weight is the robust loss's share .* at most 1",
        ),
        (
            "training: {defence: fgsm, epsilon: 0.1, validation_fraction: 0}",
            r"fgsm needs a validation_fraction above 0",
        ),
        ("training: {restore_best_epoch: true, validation_fraction: 0}", r"needs a validation_fr"),
        ("- a list", r"expected sections such as 'training:'"),
        ("training: [1", r"cannot be read as YAML"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(CertiflowError, match=said) as raised:
        load_settings(written(tmp_path, text))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("override", ["verification.samples", "=3", "seed.x=3", "seed=[1"])
def test_bad_override_is_named(override: str, tmp_path: Path) -> None:
    with pytest.raises(CertiflowError, match="--set"):
        load_settings(written(tmp_path, "seed: 1"), [override])


def test_missing_file_lists_the_others() -> None:
    with pytest.raises(CertiflowError, match="no such settings file"):
        load_settings(Path("conf/nope.yaml"))


def test_grid_is_sorted_without_duplicates_and_said(tmp_path: Path) -> None:
    path = written(tmp_path, "attack: {epsilons: [0.3, 0, 0.1, 0.1]}")
    settings, notes = load_settings(path)
    assert settings.attack.epsilons == (0, 0.1, 0.3)
    expected = "attack.epsilons was sorted and duplicates dropped: [0.0, 0.1, 0.3]"
    assert notes == [expected]


@pytest.mark.parametrize(
    ("epsilon", "text"), [(0.1, "0.1"), (0.0, "0"), (1.0, "1"), (1e-5, "0.00001"), (2 / 255, None)]
)
def test_shortest_decimal_form(epsilon: float, text: str | None) -> None:
    assert float(decimal(epsilon)) == epsilon
    assert text is None or decimal(epsilon) == text


def test_params_are_flat() -> None:
    flat = Settings().flat()
    assert flat["training.hidden"] == [128]
    assert flat["seed"] == 0


def test_the_scheduled_deployment_fits_the_flow() -> None:
    (deployment,) = yaml.safe_load((CONF.parent / "prefect.yaml").read_text())["deployments"]
    path, name = deployment["entrypoint"].split(":")
    assert (
        f"def {name}(settings: Settings, force: bool = False)" in (CONF.parent / path).read_text()
    )
    assert set(deployment["parameters"]) == {"settings", "force"}
    Settings.model_validate(deployment["parameters"]["settings"])
    # Prefect ignores a key that it does not know without a word
    assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
    environment = deployment["work_pool"]["job_variables"]["env"]
    assert environment.items() <= OFFLINE.items()


def test_the_fingerprint_follows_what_has_an_effect() -> None:
    base = load_settings(CONF / "smoke.yaml")[0].fingerprint
    clusters = ("verification.cluster=tcp://h:1", "radius.cluster=tcp://h:1")
    for same in ("tracking.output=x", "verification.workers=2", *clusters):
        assert load_settings(CONF / "smoke.yaml", [same])[0].fingerprint == base
    for other in ("seed=1", "training.epochs=9", "promotion.samples=9", "radius=null"):
        assert load_settings(CONF / "smoke.yaml", [other])[0].fingerprint != base


@pytest.mark.parametrize("section", [VerificationSettings, RadiusSettings, GlobalSettings])
def test_every_question_may_be_solved_on_a_cluster(section: type[RadiusSettings]) -> None:
    settings = section(workers=3, memory_limit_mb=512, cluster="tcp://h:1")
    assert settings.resources == Resources(3, 512 * 2**20, "tcp://h:1")
    assert section(workers=3).resources.cluster is None


def test_the_reference_radius_is_the_greatest_verified_unless_set() -> None:
    assert load_settings(CONF / "smoke.yaml")[0].reference_epsilon == 0.05
    settings = load_settings(CONF / "smoke.yaml", ["promotion.epsilon=0.01"])[0]
    assert settings.reference_epsilon == 0.01


def test_completions_are_words_and_tell_settings_apart() -> None:
    """Which data are loaded once in a process by."""
    told = [f"data.completions={{age: 41, job: {job}}}" for job in ("1", "2", "1")]
    own = "data.dataset=loans.yaml"
    data = [load_settings(CONF / "smoke.yaml", [own, each])[0].data for each in told]
    assert data[0].completions == {"age": "41", "job": "1"}
    assert data[0] == data[2] != data[1]
    assert hash(data[0]) == hash(data[2]) != hash(data[1])


def test_own_data_is_named_after_its_file() -> None:
    settings = load_settings(CONF / "smoke.yaml", ["data.dataset=/somewhere/meters.npz"])[0]
    assert settings.title == "meters dense-16"


@pytest.mark.parametrize("section", ["verification", "radius"])
def test_an_address_that_is_none_is_refused_with_its_key(section: str) -> None:
    with pytest.raises(CertiflowError, match=rf"{section}\.cluster is 'h:1': .*tcp://host:8786"):
        load_settings(CONF / "smoke.yaml", [f"{section}.cluster=h:1"])


def test_all_test_points_can_be_verified() -> None:
    for samples, count in (("all", 360), (20, 20)):
        settings = Settings.model_validate({"verification": {"samples": samples}})
        assert settings.verification.count_of(360) == count
        assert Settings.model_validate_json(settings.model_dump_json()) == settings
    with pytest.raises(ValueError, match=r"verification\.samples"):
        Settings.model_validate({"verification": {"samples": "most"}})
