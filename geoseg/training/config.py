"""What a training is told, read from a YAML mapping into frozen dataclasses; a key that nothing reads is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from geoseg.errors import UsageError
from geoseg.legend import LAND_COVER, Legend
from geoseg.model.bundle import ENSEMBLE, ModelBand, ModelBundle, find_bundle, known_bundles
from geoseg.scene import ScalingRule, of_dates
from geoseg.training.mapping import build, construct, convert, mapping, refuse_unknown

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """The network, as segmentation-models-pytorch names it, and where its encoder starts from."""

    architecture: str = "Unet"
    encoder: str = "resnet18"
    decoder: dict[str, Any] = field(default_factory=dict)
    init_package: str | None = None
    """An installed Python package that holds one `.pth` file with the encoder's weights; it is not imported."""
    init_file: Path | None = None
    """A `.pth` or `.safetensors` file with the encoder's weights."""
    init_bundle: Path | None = None
    """A model bundle of the same network to go on from; bands and classes may be others. A name or a folder.
    Where nothing is said of the network itself, it is the bundle's. A Unet with smaller `decoder_channels` than the
    bundle's gets the strongest of them."""


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """Scenes of one origin, with labels, or without for a teacher to label.

    `labels` is a path, of a class raster or a vector file, with `{stem}` and the named groups of `pattern` in braces;
    `pattern` (searched in the stem of a scene's file name) must have the group `place`. A scene without a label file is
    left out. Places in one list of `groups` overlap each other: they are held out together or not at all.
    """

    name: str
    scenes: str
    labels: str = ""
    """Empty where there are none: what these scenes show is then learnt from the teacher alone."""
    pattern: str = "(?P<place>.+)"
    hold_out: tuple[str, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()
    remap: dict[int, int] = field(default_factory=dict)
    """Label code to class code; 255 leaves a pixel out of training and scores."""
    weight: float = 1.0
    """How often a window comes from here, relative to the other sources."""
    after: str = ""
    """For a network that compares two dates: the path of the later scene, as that of `labels`."""
    bands: dict[str, int] = field(default_factory=dict)
    gsd_m: float | None = None
    """For scenes that have no CRS."""
    column: str = "class"
    """Of labels that are polygons of a vector file: the column with names or codes of classes. Those called
    `unlabelled` there say nothing of what lies below."""
    outside: int = 0
    """The code of what lies in no such polygon; 255 where they are examples, and leave out much of the same kind."""


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """How windows are varied; probabilities are 0..1."""

    gsd_m: tuple[float, float] | None = None
    """Windows are resampled to a GSD drawn from this range; null leaves them as they are."""
    rotate: float = 0.5
    """Share of windows turned by any angle; flips and quarter turns are drawn always."""
    missing: float = 0.3
    """Share of windows that lose their optional bands."""
    stretch: float = 0.4
    """Share of windows scaled by the percentiles of their scene, whatever the range of their data type."""
    radiometry: float = 1.0
    """Strength of gain, offset and gamma, for all bands together and each alone."""
    darken: float = 0.3
    """Share of windows pressed into the dark end, as a stretch does to a scene with a few very bright roofs."""
    blur: float = 0.25
    noise: float = 0.25
    cutout: float = 0.1
    """Share of windows of which a part becomes nodata."""
    repaint: float = 0.0
    """Share of windows whose roofs and roads (objects and lines) get another brightness, each its own."""


@dataclass(frozen=True, slots=True)
class TeacherConfig:
    """A network that says what it sees in each window, as it is, for the one that is trained to say of it varied.

    With a larger network as teacher that is distillation; with its own average and scenes without labels,
    self-training.
    """

    model: str | Path
    """A model bundle of the same bands and classes, by name or folder; or `self`, the moving average of the weights."""
    weight: float = 1.0
    """Of the difference from the teacher, against the losses of the labels."""
    temperature: float = 1.0
    """Above 1 the teacher's second thoughts count for more."""
    confidence: float = 0.0
    """Only pixels of which the teacher is at least so sure count, 0..1."""
    ramp: int = 0
    """The weight rises from 0 over so many steps: `self` knows nothing at first."""


@dataclass(frozen=True, slots=True)
class FitConfig:
    """Optimisation: AdamW, linear warm-up, cosine decay, a moving average of the weights (`ema`)."""

    steps: int = 1000
    batch: int = 8
    accumulate: int = 1
    """So many batches make one step, where memory holds no larger ones."""
    window: int = 256
    learning_rate: float = 1e-3
    encoder_factor: float = 0.5
    """The encoder's learning rate, relative to the decoder's."""
    weight_decay: float = 0.01
    warmup: int = 50
    ema: float = 0.99
    clip: float = 1.0
    cross_entropy: float = 1.0
    dice: float = 1.0
    focal: float = 0.0
    lovasz: float = 0.0
    """Weights of the losses of which the sum is made small."""
    class_weights: tuple[float, ...] = ()
    """Weight of each class in cross entropy, in the order of the legend; empty for all alike."""
    precision: str = "fp32"
    """Arithmetic of the network's passes while it trains: `fp32`, or `bf16`, faster where the processor has it."""
    bias: tuple[float, ...] = ()
    """What is added to the logits of each class once all is trained, in the order of the legend; empty for nothing."""
    tune_bias: bool = False
    """Whether `bias` is looked for, once all is trained, where it makes the mean IoU on the places held out highest.
    Their scores are then a little better than those of other places."""
    calibrate: bool = True
    """Whether, once all is trained, logits are divided by the number that makes confidences right on the places held
    out; classes stay as they are."""
    balance: float = 0.6
    """Share of windows drawn around a pixel of a class that is drawn first, all classes alike."""
    patience: int = 0
    """Stop after so many looks at the places held out without a better score; 0 never."""
    keep: str = "best"
    """`best`: the weights of the highest mean IoU on the places held out; `last`: those of the last step."""
    validation_window: int = 256
    validate_every: int = 100
    checkpoint_every: int = 50
    validation_windows: int = 60
    """At most so many windows of a source are looked at between steps; the end looks at all."""
    tensorboard: bool = False
    """Whether curves and examples are kept for TensorBoard too."""
    threads: int = 0
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:N`, or a GPU where there is one."""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """A training from data to bundle; `folder` is what relative paths start from."""

    name: str
    licence: str
    data: tuple[SourceConfig, ...]
    folder: Path
    gsd_m: tuple[float, float]
    bands: tuple[str, ...] = ("red", "green", "blue", "nir")
    optional: tuple[str, ...] = ("nir",)
    mean: float = 0.5
    std: float = 0.5
    scaling: ScalingRule = field(
        default_factory=lambda: ScalingRule({"uint8": (0.0, 255.0)}, percentiles=(1.0, 99.0), to=(0.1, 0.9))
    )
    tile: int = 512
    legend: Legend = LAND_COVER
    description: str = ""
    card: dict[str, Any] = field(default_factory=dict)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    teacher: TeacherConfig | None = None
    seed: int = 0

    @property
    def of_two_dates(self) -> bool:
        """Whether the network takes two dates."""
        return self.network.architecture.startswith("Siamese")

    @property
    def optional_roles(self) -> tuple[str, ...]:
        """The roles that a window may lack, as scenes have them."""
        return of_dates(self.optional) if self.of_two_dates else self.optional

    @property
    def bundle(self) -> ModelBundle:
        """The bundle to be, without weights and scores."""
        return ModelBundle(
            name=self.name,
            architecture=self.network.architecture,
            encoder=self.network.encoder,
            decoder=self.network.decoder,
            bands=tuple(
                ModelBand(role, self.mean, self.std, role in self.optional_roles)
                for role in (of_dates(self.bands) if self.of_two_dates else self.bands)
            ),
            scaling=self.scaling,
            gsd_m=self.gsd_m,
            tile=self.tile,
            legend=self.legend,
            licence=self.licence,
            description=self.description,
            card=self.card,
        )

    @classmethod
    def from_mapping(cls, data: dict[str, Any], folder: Path, *, where: str = "training config") -> TrainConfig:
        """Read a parsed YAML mapping; `where` names it in messages.

        Raises UsageError for an unknown key (with the nearest valid one), a missing key or a value of the wrong kind.
        """
        given = dict(data)
        parsed: dict[str, Any] = {"folder": folder}
        sources = given.pop("data", None)
        if not isinstance(sources, list) or not sources:
            raise UsageError(f"{where}: data must list at least one source of scenes and labels")
        parsed["data"] = tuple(
            build(SourceConfig, source, f"{where}: data[{number}]") for number, source in enumerate(sources)
        )
        parsed["network"] = _network(given.pop("network", {}), folder, f"{where}: network")
        parsed["augment"] = build(AugmentConfig, given.pop("augment", {}), f"{where}: augment")
        parsed["fit"] = build(FitConfig, given.pop("fit", {}), f"{where}: fit")
        if "teacher" in given:
            parsed["teacher"] = _teacher(given.pop("teacher"), folder, f"{where}: teacher")
        if "scaling" in given:
            parsed["scaling"] = ScalingRule.from_json(mapping(given.pop("scaling"), f"{where}: scaling"))
        if "legend" in given:
            parsed["legend"] = Legend.from_json(given.pop("legend"))
        refuse_unknown(cls, {**given, **parsed}, where, hidden=("folder",) if "folder" in given else ())
        config = construct(cls, {**convert(cls, given, where), **parsed}, where)
        _check(config, where)
        return config


def load_config(path: Path) -> TrainConfig:
    """Read a YAML file; relative paths in it start from its folder. Raises UsageError."""
    import yaml  # noqa: PLC0415  # only those who train from a file need it

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {error}") from error
    return TrainConfig.from_mapping(mapping(data, str(path)), path.parent, where=str(path))


def _network(data: Any, folder: Path, where: str) -> NetworkConfig:
    given = dict(mapping(data, where))
    init = given.pop("init", None)
    for key in ("init_package", "init_file", "init_bundle"):
        if key in given:
            raise UsageError(f"{where}: {key!r} is not a key; write init: {{{key.removeprefix('init_')}: ...}}")
    if init is not None:
        init = dict(mapping(init, f"{where}: init"))
        if len(init) != 1 or not set(init) <= {"package", "file", "bundle"}:
            raise UsageError(f"{where}: init takes one of package, file and bundle; found {sorted(init)}")
        ((kind, source),) = init.items()
        named = kind == "package" or (kind == "bundle" and str(source) in known_bundles())
        given[f"init_{kind}"] = str(source) if named else folder / str(source)
        if kind == "bundle" and not {"architecture", "encoder", "decoder"} & set(given):
            bundle = find_bundle(given["init_bundle"])
            given |= {"architecture": bundle.architecture, "encoder": bundle.encoder, "decoder": bundle.decoder}
    return build(NetworkConfig, given, where)


def _teacher(data: Any, folder: Path, where: str) -> TeacherConfig:
    given = dict(mapping(data, where))
    model = str(given.get("model", ""))
    if model and model != "self" and model not in known_bundles():
        given["model"] = folder / model
    return build(TeacherConfig, given, where)


def _check(config: TrainConfig, where: str) -> None:
    if not set(config.optional) < set(config.bands):
        raise UsageError(
            f"{where}: optional is {list(config.optional)}; it takes some, not all, of {list(config.bands)}"
        )
    if config.std <= 0 or not 0 < config.gsd_m[0] <= config.gsd_m[1]:
        raise UsageError(f"{where}: std and gsd_m (finest, coarsest) must be above 0")
    if config.network.architecture == ENSEMBLE:
        raise UsageError(f"{where}: an ensemble is not trained; train its members, and `geoseg models average` them")
    _check_fit(config, where)
    _check_teacher(config, where)
    for source in config.data:
        if config.of_two_dates != bool(source.after):
            wanted = "the later scene as after" if config.of_two_dates else "no after: its network takes one date"
            raise UsageError(f"{where}: data {source.name} needs {wanted}")
    for source in config.data:
        for group in source.groups:
            split = set(group) & set(source.hold_out)
            if split and split != set(group):
                raise UsageError(
                    f"{where}: {source.name} holds out {sorted(split)}, but {list(group)} overlap each other; "
                    "hold out all of them or none"
                )


def _check_fit(config: TrainConfig, where: str) -> None:
    fit = config.fit
    for key, size in (("window", fit.window), ("validation_window", fit.validation_window)):
        if size < 32 or size % 32:
            raise UsageError(f"{where}: fit.{key} is {size}; it takes a multiple of 32")
    for key in ("steps", "batch", "accumulate", "validate_every", "checkpoint_every", "validation_windows"):
        if getattr(fit, key) < 1:
            raise UsageError(f"{where}: fit.{key} is {getattr(fit, key)}; it takes 1 or more")
    _check_losses(fit, where)
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", fit.device):
        raise UsageError(f"{where}: fit.device is {fit.device!r}; it takes auto, cpu, cuda or cuda:N")
    if fit.keep not in {"best", "last"}:
        raise UsageError(f"{where}: fit.keep is {fit.keep!r}; it takes best or last")
    if fit.precision not in {"fp32", "bf16"}:
        raise UsageError(f"{where}: fit.precision is {fit.precision!r}; it takes fp32 or bf16")
    _check_bias(config, where)


def _check_bias(config: TrainConfig, where: str) -> None:
    fit = config.fit
    if fit.tune_bias and fit.bias:
        raise UsageError(f"{where}: fit.bias is given, so there is none to be found by fit.tune_bias")
    for key, values in (("bias", fit.bias), ("class_weights", fit.class_weights)):
        if values and len(values) != len(config.legend.classes):
            raise UsageError(
                f"{where}: fit.{key} has {len(values)} numbers; it takes one for each of "
                f"{', '.join(config.legend.names)}"
            )


def _check_teacher(config: TrainConfig, where: str) -> None:
    teacher = config.teacher
    for source in config.data:
        if not source.labels and (teacher is None or source.hold_out):
            wanted = "a place held out needs labels" if source.hold_out else "give it labels, or a teacher"
            raise UsageError(f"{where}: data {source.name} has no labels; {wanted}")
    if teacher is None:
        return
    if teacher.weight <= 0 or teacher.temperature <= 0 or teacher.ramp < 0 or not 0 <= teacher.confidence < 1:
        raise UsageError(
            f"{where}: teacher takes weight and temperature above 0, ramp of 0 or more, confidence from 0 to below 1"
        )


def _check_losses(fit: FitConfig, where: str) -> None:
    losses = {key: getattr(fit, key) for key in ("cross_entropy", "dice", "focal", "lovasz")}
    if min(losses.values()) < 0 or not any(losses.values()):
        raise UsageError(f"{where}: fit weighs losses with {losses}; it takes 0 or more, and one above 0")
