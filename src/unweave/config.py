"""Every option, in one place: frozen dataclasses without torch.

The line under a field is its help text on the command line, its type says which numbers it takes. Validation happens
when a config is made, so one that exists can be used. Defaults are those of the published Shapes3D run.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from unweave.errors import require

Crop = Literal["center", "pad", "stretch", "celeba_128", "celeba_96"]


class Rule(NamedTuple):
    """What the value of an option must be, in words and as a test of it."""

    words: str
    holds: Callable[[Any], bool]


Count = Annotated[int, Rule("must be at least 1", lambda n: n >= 1)]
CountOrZero = Annotated[int, Rule("must not be negative", lambda n: n >= 0)]
Several = Annotated[int, Rule("must be at least 2", lambda n: n >= 2)]
Even = Annotated[int, Rule("must be even and positive", lambda n: n >= 1 and n % 2 == 0)]
Widths = Annotated[tuple[int, ...], Rule("all must be at least 1", lambda widths: min(widths, default=1) >= 1)]
Levels = Annotated[tuple[int, ...], Rule("name at least one, all at least 1", lambda sizes: min(sizes, default=0) >= 1)]
Positive = Annotated[float, Rule("must be positive", lambda x: x > 0)]
NotNegative = Annotated[float, Rule("must not be negative", lambda x: x >= 0)]
Part = Annotated[float, Rule("choose from 0 to 1", lambda x: 0 <= x <= 1)]
PartBelowOne = Annotated[float, Rule("choose from 0 to below 1", lambda x: 0 <= x < 1)]


@dataclass(frozen=True)
class Options:
    """Options that are called `group.name` on the command line; the type of each has the rules for its value."""

    group: ClassVar[str]

    def __init_subclass__(cls, group: str = "") -> None:
        cls.group = group or cls.group

    def __post_init__(self) -> None:
        for option in fields(self):
            for rule in getattr(option.type, "__metadata__", ()):
                self.require(option.name, rule.holds(getattr(self, option.name)), rule.words)

    def require(self, name: str, condition: bool, words: str) -> None:
        """Raises `UserError` with the value of the option `name` and the remedy, `words`, unless `condition` holds."""
        require(condition, f"{self.group}.{name} is {getattr(self, name)}: {words}")


@dataclass(frozen=True)
class DataConfig(Options, group="data"):
    name: str = "rooms"
    """The data set: `rooms`, which looks like Shapes3D, or `dsprites`. They are generated, nothing is downloaded."""
    folder: str = ""
    """Your own images instead of `name`: a folder or zip of pictures, an array (.npy, .npz), tar shards (a folder,
    'train-{0000..0099}.tar'), a Hugging Face data set (hf://OWNER/NAME, saved, .parquet), or a published file of
    Shapes3D (.h5), dSprites, MPI3D (.npz), Cars3D (.tar.gz) or smallNORB (a folder)."""
    labels: str = ""
    """Labels of your own images, a .csv with a first column of file names, or list_attr_celeba.txt. For scores only."""
    crop: Crop = "center"
    """How a picture becomes a square: its middle, the whole on black bars, or the whole at another aspect; of CelebA's
    aligned pictures 128 px around the face, or, as if resized to 96 px, the middle 64."""
    strict: bool = False
    """Stop at the first picture that cannot be read. Otherwise it is skipped, and listed beside the stored images."""
    fixed: tuple[str, ...] = ()
    """Factors held at one value: `--data.fixed floor_hue=0 scale=4`. They leave the index and the scores."""
    held_out: Annotated[float, Rule("choose a part from 0 to 0.5", lambda x: 0 <= x <= 0.5)] = 0.02
    """Part of the images, 0 to 0.5, that is never trained on; its loss is in the record. 0 switches it off."""
    cache: str = ""
    """Folder for stored images. Empty: the user's cache folder, which is named on screen."""
    cache_gb: float = 2.0
    """Most disk space stored images may take. A larger generated set is generated again each time it is read."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for item in self.fixed:
            name, _, value = item.partition("=")
            require(bool(name) and value.isdigit(), f"data.fixed has {item!r}: write factor=value, as in floor_hue=0")

    @property
    def fixed_values(self) -> dict[str, int]:
        """The fixed factors and their values."""
        return {name: int(value) for name, _, value in (item.partition("=") for item in self.fixed)}


@dataclass(frozen=True)
class VQConfig(Options, group="vq"):
    """The VQ first stage: a diffusers VQModel (VQ-GAN, Esser et al. 2021)."""

    channels: Levels = (32, 64, 128)
    """Channels of each level; each level after the first halves the width."""
    num_res_blocks: Count = 2
    """Residual blocks per level (one more on the way up)."""
    codebook_size: Count = 2048
    """Vectors in the codebook."""
    norm_groups: Count = 32
    """Groups of the group norms; the largest common divisor where the channels are not a multiple of it."""

    @property
    def downsample(self) -> int:
        """Image width / latent width."""
        return 2 ** (len(self.channels) - 1)


@dataclass(frozen=True)
class TokenizerConfig(Options, group="tokenizer"):
    """Image <-> latent, frozen while the diffusion model trains."""

    kind: Literal["pixels", "patch", "vq"] = "vq"
    """`vq`: a diffusers VQModel from `folder`; `patch`: orthonormal PCA of image patches, fitted in seconds;
    `pixels`: none."""
    channels: Count = 3
    """Latent channels: 3 for `pixels`, the published `vq` has 3, `patch` keeps this many principal components."""
    downsample: Count = 4
    """Image width / latent width: 1 for `pixels`, 4 for the published `vq`, the patch width for `patch`."""
    whitening: Part = 0.0
    """`patch` only, 0 to 1: a component of standard deviation s is divided by s ** whitening. Above 0, details that
    take few pixels count beside large areas."""
    folder: str = ""
    """Folder of the trained VQModel (`vq` only). Read once, before training; then its weights are in the model."""
    vq: VQConfig = field(default_factory=VQConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind == "pixels":
            require(
                self.channels == 3 and self.downsample == 1,
                f"tokenizer `pixels` has 3 channels and downsample 1, not {self.channels} and {self.downsample}",
            )
        if self.kind == "patch":
            most = 3 * self.downsample**2
            self.require(
                "channels", self.channels <= most, f"a {self.downsample} px patch has {most} components at most"
            )
        if self.kind == "vq":
            levels, made = len(self.vq.channels), self.vq.downsample
            self.require("downsample", self.downsample == made, f"{levels} levels of a VQModel make {made}")


@dataclass(frozen=True)
class ExtractorConfig(Options, group="encoder"):
    """Convolutions and fully connected layers: image -> `num_units` scalars (EncDiff, Yang et al. 2024)."""

    num_units: Count = 20
    """N, the number of latent units."""
    channels: Levels = (64, 128, 256, 256, 256)
    """Output channels of the convolutions; each after the first halves the width."""
    stem_kernel: Count = 7
    """Kernel of the first convolution."""
    stem_stride: Count = 1
    """Stride of the first convolution."""
    trunk: Literal["plain", "residual"] = "plain"
    """`plain`: the convolutions, each with its norm and ReLU; `residual`: EncDiff's and DisDiff's, where the last
    convolution but one has no ReLU and two residual blocks follow."""
    hidden: Widths = (4096, 256)
    """Widths of the fully connected layers between the convolutions and the scalars."""

    def __post_init__(self) -> None:
        super().__post_init__()
        enough = self.trunk == "plain" or len(self.channels) >= 2
        self.require("channels", enough, "encoder.trunk `residual` needs at least two convolutions")


@dataclass(frozen=True)
class EncoderConfig(ExtractorConfig):
    """Feature extractor: image -> `num_units` scalars -> as many tokens (Jun et al. 2025)."""

    token_dim: Count = 32
    """D, the width of a unit's token."""
    unit_hidden: Widths = (256, 512)
    """Widths of each unit's own MLP from scalar to token."""
    unit_activation: Literal["relu", "elu"] = "relu"
    """Activation inside those MLPs: EncDiff has `elu`."""
    token_activation: Literal["relu", "none"] = "relu"
    """Activation of the token: `relu` is the published code's, EncDiff has `none`."""
    beta: NotNegative = 0.0
    """Weight of a variational bottleneck, as the beta of beta-VAE: each scalar is drawn from a normal distribution,
    whose divergence from the standard normal is added to the loss. 1 is the evidence lower bound; 0: no bottleneck."""
    beta_initial: NotNegative = 0.0
    """Beta as a run begins, annealed to `beta` evenly in its logarithm; 0 keeps `beta` all along. With a high beta at
    first, units come into use one after the other, each for the factor that lowers the loss most."""
    beta_annealing: Annotated[float, Rule("choose above 0, 1 at most", lambda x: 0 < x <= 1)] = 0.4
    """Part of the run, 0 to 1, over which beta is annealed."""
    levels: Annotated[int, Rule("choose 2 or more, 0 for none", lambda n: n == 0 or n >= 2)] = 0
    """Bounds each scalar by tanh and rounds it to so many levels, evenly from -1 to 1; gradients pass as if nothing
    were rounded (finite scalar quantisation, Mentzer et al. 2024). 0 leaves the scalars alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        annealed = self.beta > 0 or self.beta_initial == 0
        self.require("beta_initial", annealed, "encoder.beta is 0, so there is no bottleneck: set both")
        either = self.levels == 0 or self.beta == 0
        self.require("levels", either, f"encoder.beta is {self.beta}, one bottleneck or the other: set one to 0")

    def beta_at(self, progress: float) -> float:
        """Beta when `progress`, 0 to 1, of a run is done."""
        left = max(0.0, 1 - progress / self.beta_annealing)
        return self.beta * (self.beta_initial / self.beta) ** left if self.beta_initial else self.beta


@dataclass(frozen=True)
class UNetConfig(Options, group="unet"):
    """Cross-attention U-Net with skip dropout (Jun et al. 2025)."""

    channels: Even = 64
    """Channels of the first level."""
    multipliers: Levels = (1, 2, 4, 4)
    """Channels of each level, as multiples of `channels`; each level halves the width."""
    num_res_blocks: Count = 2
    """Residual blocks per level (one more on the way up)."""
    attention_widths: tuple[int, ...] = (16, 8, 4)
    """Widths of the feature maps that attend to the tokens; the middle block always does."""
    num_heads: Count = 8
    """Attention heads."""
    self_attention: bool = True
    """Whether a transformer block has self-attention before the cross-attention."""
    norm_groups: Count = 32
    """Groups of the group norms; the largest common divisor where the channels are not a multiple of it."""
    dropout: PartBelowOne = 0.1
    """Dropout inside the residual blocks."""
    skip_dropout: PartBelowOne = 0.2
    """Skip Dropout: probability of dropping a channel of a skip connection."""
    skip_dropout_widths: tuple[int, ...] = (16, 8)
    """Widths of the skips that are dropped from; the published code drops at 16 and 8 of 16, 8, 4, 2."""
    skip_dropout_mode: Literal["channel", "element"] = "channel"
    """Drop whole channels (as published) or single elements."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for multiplier in self.multipliers:
            width = self.channels * multiplier
            divides = width % self.num_heads == 0
            self.require("num_heads", divides, f"must divide every level's channels, one has {width}")


@dataclass(frozen=True)
class TransformerConfig(Options, group="transformer"):
    """Denoiser without convolutions, for latents of few positions, where it is many times faster than a U-Net."""

    width: Even = 64
    """Width of the network."""
    depth: Count = 3
    """Blocks."""
    num_heads: Count = 4
    """Attention heads."""
    self_attention: bool = False
    """Whether positions attend to each other. Without it, only the units connect them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        divides = self.width % self.num_heads == 0
        self.require("num_heads", divides, f"must divide transformer.width {self.width}")


@dataclass(frozen=True)
class NoiseConfig(Options, group="noise"):
    """Noise schedule, what the network predicts, at which times it trains and how each counts (Ho et al. 2020)."""

    num_steps: Several = 1000
    """T, the number of noise levels."""
    beta_start: float = 0.0015
    """First beta of the scaled-linear schedule."""
    beta_end: float = 0.0155
    """Last beta."""
    prediction: Literal["noise", "v", "image", "flow"] = "noise"
    """What the denoiser predicts: `noise` is the paper's; `v` = sqrt(abar) noise - sqrt(1 - abar) latent; `image`, the
    clean latent; `flow` = noise - latent, on a straight path from one to the other in place of the betas."""
    weighting: Literal["none", "min_snr"] = "none"
    """Weight of the error at each time: 1, or min(SNR, snr_gamma) of the error of the clean latent."""
    snr_gamma: Positive = 5.0
    """Largest weight of `min_snr`."""
    times: Literal["uniform", "logit_normal"] = "uniform"
    """Distribution of the training times, as a part of num_steps: uniform, or the sigmoid of a normal number."""
    times_mean: float = 0.0
    """Mean of that normal number; above 0 means more noise."""
    times_std: Positive = 1.0
    """Its standard deviation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            0 < self.beta_start <= self.beta_end < 1,
            f"noise.beta_start, beta_end are {self.beta_start}, {self.beta_end}: need 0 < start <= end < 1",
        )


@dataclass(frozen=True)
class AnchorConfig(Options, group="anchors"):
    """Dynamic Gaussian anchoring (Jun et al. 2025; docs/fidelity.md says what `corrected` corrects)."""

    mode: Literal["off", "published", "corrected"] = "corrected"
    """`off`; `published`: the published arithmetic, whose pull is 0 on ReLU tokens; `corrected`: a pull that acts."""
    space: Literal["scalar", "token"] = "scalar"
    """What the Gaussians live in (corrected): each unit's scalar, or its token in its principal directions.
    How many there are is decided on the scalar."""
    target: Literal["scalar", "anchor_token", "mean_token"] = "scalar"
    """What is pulled where (corrected, scalar space): the scalar to the anchor's mean before the unit's MLP; or the
    token to the token of that mean; or the token to the mean token of the anchor's members."""
    lambda_max: Part = 0.1
    """Strength of the pull at the anchor itself, 0 to 1."""
    k_max: Count = 32
    """Most Gaussians a unit may have."""
    criterion: Literal["bic", "icl"] = "icl"
    """Splits and merges are kept when this improves: `icl`, BIC less the entropy of the assignment, asks for clusters;
    `bic` alone also describes shapes, and gives a uniform scalar dozens of Gaussians."""
    reg_covar: Positive = 1e-6
    """Ridge on the covariances, in units of the standardised scalar's (token's) variance."""
    min_size: Several = 10
    """A Gaussian with fewer points than this is dropped."""
    max_points: Several = 100_000
    """Most images used for one fit, drawn under the seed; all where there are fewer."""
    fit_every_images: Count = 480_000
    """The anchors are fitted each time this many images have been trained on, and at the end."""


@dataclass(frozen=True)
class ModelConfig(Options, ABC, group="model"):
    """What the options of every model with units share. Its kinds are the rows of `MODELS`."""

    image_size: int = 64
    """Height and width of the images in pixels."""

    @property
    @abstractmethod
    def num_units(self) -> int:
        """N, the number of latent units."""


@dataclass(frozen=True)
class DiffusionConfig(ModelConfig):
    """DyGA, and EncDiff without its anchors and Skip Dropout (Jun et al. 2025; Yang et al. 2024)."""

    loss: Literal["l1", "l2"] = "l1"
    """Distance between the denoiser's prediction and its target."""
    denoiser: Literal["unet", "transformer"] = "unet"
    """The network that draws the image from the units: the published `unet`, or a small `transformer`."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    anchors: AnchorConfig = field(default_factory=AnchorConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        down = self.tokenizer.downsample
        require(
            self.image_size % down == 0,
            f"tokenizer.downsample is {down}: must divide model.image_size {self.image_size}",
        )
        if self.denoiser == "unet":
            self._check_unet()

    def _check_unet(self) -> None:
        levels = len(self.unet.multipliers)
        require(
            self.latent_size % 2 ** (levels - 1) == 0,
            f"unet.multipliers has {levels} levels: {self.latent_size} px latents cannot be halved {levels - 1} times",
        )
        widths = [self.latent_size // 2**level for level in range(levels)]
        for name in ("attention_widths", "skip_dropout_widths"):
            unknown = sorted(set(getattr(self.unet, name)) - set(widths))
            require(
                not unknown,
                f"unet.{name} has {unknown}: the feature maps of {self.latent_size} px latents are {widths} px",
            )

    @property
    def num_units(self) -> int:
        return self.encoder.num_units

    @property
    def latent_size(self) -> int:
        """Height and width of the latents."""
        return self.image_size // self.tokenizer.downsample


@dataclass(frozen=True)
class VAEConfig(ModelConfig):
    """A variational auto-encoder with a penalty on its codes: beta-VAE, beta-TCVAE, FactorVAE or DIP-VAE."""

    penalty: Literal["beta_vae", "beta_tcvae", "factor_vae", "dip_vae"] = "beta_vae"
    """What is added to the evidence lower bound: more of the divergence from the prior (`beta_vae`, Higgins et al.
    2017), the total correlation estimated from the batch (`beta_tcvae`, Chen et al. 2018) or by a discriminator
    (`factor_vae`, Kim and Mnih 2018), or the distance of the covariance from the identity (`dip_vae`, DIP-VAE-II, Kumar
    et al. 2018)."""
    weight: float = 4.0
    """Weight of the penalty: beta of beta-VAE and beta-TCVAE (1 is a plain VAE), gamma of FactorVAE, lambda of DIP-VAE
    (0 is a plain VAE)."""
    encoder: ExtractorConfig = field(default_factory=ExtractorConfig)
    decoder_hidden: Widths = (256,)
    """Widths of the fully connected layers between the units and the transposed convolutions."""
    decoder_channels: Levels = (64, 64, 32, 32)
    """Input channels of the transposed convolutions; each doubles the width, the last gives the image."""
    discriminator_widths: Widths = (1000,) * 6
    """Widths of the hidden layers of FactorVAE's discriminator."""
    discriminator_lr_ratio: Positive = 1.0
    """Learning rate of the discriminator, in units of train.lr."""

    def __post_init__(self) -> None:
        super().__post_init__()
        least = 1 if self.penalty in ("beta_vae", "beta_tcvae") else 0
        self.require("weight", self.weight >= least, f"{self.penalty} needs at least {least}")
        levels = len(self.decoder_channels)
        halved = self.image_size % 2**levels == 0
        self.require("decoder_channels", halved, f"{self.image_size} px cannot be halved {levels} times")

    @property
    def num_units(self) -> int:
        return self.encoder.num_units


class Kind(NamedTuple):
    """A family of models with units."""

    options: type[ModelConfig]
    model: str
    """The module and the class of its network, which is imported when a model is built."""


MODELS = {
    "diffusion": Kind(DiffusionConfig, "unweave.models.diffusion.DiffusionModel"),
    "vae": Kind(VAEConfig, "unweave.models.vae.VAE"),
}
"""By the name that saved files have for it."""


Solver = Literal["ddim", "dpm"]


@dataclass(frozen=True)
class Sampling:
    """How images are drawn from units."""

    steps: int = 20
    """Sampling steps; `ddim` takes divisors of the noise levels, 1000."""
    seed: int = 0
    """Seed of the noise, and of the images where some are chosen."""
    solver: Solver = "dpm"
    """`dpm`: DPM-Solver++(2M), few steps; `ddim`, the published sampler, which needs 100."""


@dataclass(frozen=True)
class LoopConfig(Options, group="train"):
    """What both stages' training have in common."""

    images: Count = 48_000_000
    """Images to train on in all, each pass counted."""
    batch_size: Count = 512
    """Images per step, over all processes."""
    accumulate: Count = 1
    """A step works through its batch in this many parts, one after the other: less memory, the mean of their gradients.
    BatchNorm sees a part at a time."""
    lr: Positive = 1e-4
    """The optimiser's learning rate."""
    warmup_images: CountOrZero = 0
    """The learning rate rises linearly over this many images."""
    cooldown: Part = 0.0
    """Last part of the run, 0 to 1, over which the learning rate falls linearly to 0."""
    clip: NotNegative = 0.0
    """Largest norm of the gradient; 0 does not clip."""
    ema_decay: PartBelowOne = 0.9999
    """Decay of the moving average of the trained weights, min(decay, (1 + n) / (10 + n)) at update n; 0 averages
    nothing."""
    log_every_images: Count = 50_000
    """A line in the record each time this many images were trained on."""
    restarts: Count = 1
    """Train so many models for `restart_images` each, with other first weights, and continue with the one whose
    held-out loss is lowest. `images` counts those of the one that is kept."""
    restart_images: Count = 200_000
    """Images that each start is trained on before one is chosen."""
    save_every_images: Count = 1_000_000
    """A checkpoint each time this many images were trained on, and at the end."""
    seed: CountOrZero = 0
    """Seed of everything random."""
    workers: CountOrZero = 0
    """Processes that read images; 0 reads in the training process."""
    threads: CountOrZero = 0
    """CPU threads of each process's arithmetic; 0: torch's own choice. Small models gain little by a second one, and
    lose most of their speed when threads wait for each other on a machine that does other things too."""
    devices: Count = 1
    """Processes that train together, one per device."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Arithmetic of the networks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        split = f"train.devices {self.devices} times train.accumulate {self.accumulate}"
        even = self.batch_size % (self.devices * self.accumulate) == 0
        self.require("batch_size", even, f"must be a multiple of {split}")
        early = self.restarts == 1 or self.restart_images < self.images
        self.require("restart_images", early, f"must be fewer than train.images, {self.images}")


@dataclass(frozen=True)
class TrainConfig(LoopConfig):
    """Training of the diffusion model. The average is that of the U-Net's weights."""

    weight_decay: NotNegative = 0.01
    """AdamW's weight decay."""
    ema_encoder: bool = False
    """Whether the feature extractor has a moving average too (the published code: no)."""
    compile: bool = False
    """Whether to run the networks through torch.compile."""
    cache_latents: bool = False
    """`vq` only: encode each image once, into a file beside the stored images, and train from that (float16; at most
    data.cache_gb)."""


@dataclass(frozen=True)
class RunConfig:
    """All that defines a run of a model with units."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=DiffusionConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        kind = self.model.tokenizer.kind if isinstance(self.model, DiffusionConfig) else "none"
        require(
            kind == "vq" or not self.train.cache_latents,
            f"train.cache_latents is for the tokenizer `vq`, which is slow to encode: this one is `{kind}`",
        )


@dataclass(frozen=True)
class PerceptualConfig(Options, group="perceptual"):
    """Distance of VGG16's features (LPIPS, Zhang et al. 2018). Its weights are your files: nothing is downloaded."""

    weight: NotNegative = 1.0
    """Weight beside the pixels' distance; 0 leaves it out."""
    backbone: str = ""
    """VGG16 as torchvision publishes it: a state dict, features.0.weight and so on. Empty: trains without."""
    heads: str = ""
    """The linear heads of LPIPS, version 0.1, vgg: a state dict, lin0.model.1.weight and so on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            bool(self.backbone) == bool(self.heads),
            "perceptual.backbone and perceptual.heads belong together: name both files, or neither",
        )


@dataclass(frozen=True)
class CriticConfig(Options, group="critic"):
    """PatchGAN critic (Isola et al. 2017) with the hinge loss and the adaptive weight of VQ-GAN (Esser et al. 2021)."""

    weight: NotNegative = 0.75
    """Weight of the adversarial loss, times |gradient of the distances| / |gradient of the adversarial loss|; 0: no
    critic."""
    factor: NotNegative = 1.0
    """Weight of the adversarial loss and of the critic's own loss, on top of that."""
    start: Part = 0.0
    """Part of the run, 0 to 1, before which the critic is neither used nor trained."""
    channels: Count = 64
    """Channels of the first convolution; each after it doubles them, up to eight times as many."""
    layers: Count = 3
    """Convolutions that halve the width, the first among them: they set the size of a patch."""
    lr_ratio: Positive = 1.0
    """The critic's learning rate, in units of train.lr."""


@dataclass(frozen=True)
class VQGANConfig(Options, group="model"):
    """The VQ first stage and its losses (VQ-GAN, Esser et al. 2021). A weight of 0 leaves its part out."""

    image_size: int = 64
    """Height and width of the images in pixels."""
    channels: Count = 3
    """Latent channels, the length of a codebook vector."""
    vq: VQConfig = field(default_factory=VQConfig)
    pixel: NotNegative = 1.0
    """Weight of the mean absolute difference of the pixels."""
    codebook: NotNegative = 1.0
    """Weight of the mean squared distance of latents and their codes; it counts twice, as a pull on the codes and as a
    pull on the latents."""
    beta: NotNegative = 0.25
    """Weight of one of the two pulls."""
    beta_on: Literal["latents", "codes"] = "latents"
    """Which one: on the `latents` is the commitment term (van den Oord et al. 2017); on the `codes`, what the published
    code does."""
    revive_after: CountOrZero = 0
    """A code that was nearest to no latent for this many batches in a row becomes a latent of the last; 0: never."""
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.pixel > 0 or (self.perceptual.weight > 0 and bool(self.perceptual.backbone)),
            "model.pixel is 0 and there is no perceptual distance: set one of them, the reconstruction needs a loss",
        )
        down = self.vq.downsample
        self.require("image_size", self.image_size % down == 0, f"the levels of the VQModel need a multiple of {down}")
        require(
            self.critic.weight == 0 or self.image_size // 2**self.critic.layers >= 3,
            f"critic.layers is {self.critic.layers}: {self.image_size} px images are too small for as many",
        )


@dataclass(frozen=True)
class VQTrainConfig(LoopConfig):
    """Training of the VQ first stage by Adam(0.5, 0.9), as published. No average by default."""

    images: Count = 48_480_000
    """Images to train on in all, each pass counted."""
    batch_size: Count = 256
    """Images per step, over all processes."""
    accumulate: Count = 2
    """A step works through its batch in this many parts, one after the other: less memory, the mean of their gradients.
    BatchNorm sees a part at a time."""
    lr: Positive = 1.152e-3
    """The optimiser's learning rate: 4.5e-6 times the images of a step, as the published code scales it unless told not
    to; then it is 4.5e-6."""
    ema_decay: PartBelowOne = 0.0
    """Decay of the moving average of the trained weights, min(decay, (1 + n) / (10 + n)) at update n; 0 averages
    nothing."""


@dataclass(frozen=True)
class VQRunConfig:
    """All that defines a run of the first stage."""

    data: DataConfig = field(default_factory=DataConfig)
    model: VQGANConfig = field(default_factory=VQGANConfig)
    train: VQTrainConfig = field(default_factory=VQTrainConfig)
