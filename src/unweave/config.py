"""All options, as frozen dataclasses without torch.

The line under a field is its help text on the command line; its type says which values are allowed. A config is
validated when it is made, so every config that exists is valid. Defaults are those of the published Shapes3D run.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from unweave.errors import require

Crop = Literal["center", "pad", "stretch", "celeba_128", "celeba_96"]


class Rule(NamedTuple):
    """A condition on the value of an option, in words and as a predicate."""

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
    """Options called `group.name` on the command line; the type of each carries the rules for its value."""

    group: ClassVar[str]

    def __init_subclass__(cls, group: str = "") -> None:
        cls.group = group or cls.group

    def __post_init__(self) -> None:
        for option in fields(self):
            for rule in getattr(option.type, "__metadata__", ()):
                self.require(option.name, rule.holds(getattr(self, option.name)), rule.words)

    def require(self, name: str, condition: bool, words: str) -> None:
        """Raises `UserError` with the value of the option `name` and the remedy `words` unless `condition` holds."""
        require(condition, f"{self.group}.{name} is {getattr(self, name)}: {words}")


@dataclass(frozen=True)
class DataConfig(Options, group="data"):
    name: str = "rooms"
    """The data set: `rooms`, which looks like Shapes3D, or `dsprites`. Both are generated, nothing is downloaded."""
    folder: str = ""
    """Your own images in place of `name`: a folder or zip of pictures, an array (.npy, .npz), tar shards (a folder,
    'train-{0000..0099}.tar'), a Hugging Face data set (hf://OWNER/NAME, saved, .parquet), or a published file of
    Shapes3D (.h5), dSprites, MPI3D (.npz), Cars3D (.tar.gz) or smallNORB (a folder)."""
    labels: str = ""
    """Labels of your own images, used for scores only: a .csv whose first column has the file names, or
    list_attr_celeba.txt."""
    crop: Crop = "center"
    """How a picture becomes square: `center` crop, `pad` with black bars, or `stretch`; for CelebA's aligned pictures
    `celeba_128`, 128 px around the face, or `celeba_96`, resize to 96 px and crop the middle 64."""
    strict: bool = False
    """Stop at the first picture that cannot be read. Otherwise it is skipped and listed beside the stored images."""
    fixed: tuple[str, ...] = ()
    """Factors held at one value: `--data.fixed floor_hue=0 scale=4`. They are left out of the index and the scores."""
    held_out: Annotated[float, Rule("choose a part from 0 to 0.5", lambda x: 0 <= x <= 0.5)] = 0.02
    """Fraction of the images, 0 to 0.5, held out of training; the record has their loss. 0 holds out none."""
    cache: str = ""
    """Folder for stored images. Empty: the user's cache folder, which is printed."""
    cache_gb: float = 2.0
    """Maximum disk space of stored images in GB. A larger generated set is generated again whenever it is read."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for item in self.fixed:
            name, _, value = item.partition("=")
            require(bool(name) and value.isdigit(), f"data.fixed has {item!r}: write factor=value, as in floor_hue=0")

    @property
    def fixed_values(self) -> dict[str, int]:
        """The fixed factors and the index of their value."""
        return {name: int(value) for name, _, value in (item.partition("=") for item in self.fixed)}


@dataclass(frozen=True)
class VQConfig(Options, group="vq"):
    """The VQ first stage: a diffusers VQModel, the auto-encoder of VQ-GAN (Esser et al. 2021)."""

    channels: Levels = (32, 64, 128)
    """Channels of each level; each level after the first halves the width."""
    num_res_blocks: Count = 2
    """Residual blocks per level (one more in the decoder)."""
    codebook_size: Count = 2048
    """Number of vectors in the codebook."""
    norm_groups: Count = 32
    """Groups of the group norms; where the channels are not a multiple of it, their greatest common divisor."""

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
    """`patch` only, 0 to 1: a component of standard deviation s is divided by s ** whitening. Above 0, small details
    weigh more against large areas."""
    folder: str = ""
    """Folder of the trained VQModel (`vq` only). It is read once, before training; the model then has its weights."""
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
            levels, actual = len(self.vq.channels), self.vq.downsample
            self.require("downsample", self.downsample == actual, f"a VQModel of {levels} levels has {actual}")


@dataclass(frozen=True)
class ExtractorConfig(Options, group="encoder"):
    """Convolutions and fully connected layers: image -> `num_units` scalars (Yang et al. 2024; Jun et al. 2025)."""

    num_units: Count = 20
    """N, the number of latent units."""
    channels: Levels = (64, 128, 256, 256, 256)
    """Output channels of the convolutions; each after the first halves the width."""
    stem_kernel: Count = 7
    """Kernel of the first convolution."""
    stem_stride: Count = 1
    """Stride of the first convolution."""
    trunk: Literal["plain", "residual"] = "plain"
    """`plain`: convolutions, each with batch norm and ReLU; `residual`: that of EncDiff and DisDiff, where the second
    to last convolution has no ReLU and two residual blocks follow."""
    hidden: Widths = (4096, 256)
    """Widths of the fully connected layers between the convolutions and the scalars."""

    def __post_init__(self) -> None:
        super().__post_init__()
        enough = self.trunk == "plain" or len(self.channels) >= 2
        self.require("channels", enough, "encoder.trunk `residual` needs at least two convolutions")


@dataclass(frozen=True)
class EncoderConfig(ExtractorConfig):
    """Feature extractor: image -> `num_units` scalars -> one token each (Yang et al. 2024; Jun et al. 2025)."""

    token_dim: Count = 32
    """D, the width of a unit's token."""
    unit_hidden: Widths = (256, 512)
    """Hidden widths of each unit's own MLP from scalar to token."""
    unit_activation: Literal["relu", "elu"] = "relu"
    """Activation inside those MLPs: EncDiff has `elu`."""
    token_activation: Literal["relu", "none"] = "relu"
    """Activation of the tokens: the published code of DyGA has `relu`, EncDiff `none`."""
    beta: NotNegative = 0.0
    """Weight of a variational bottleneck, as in beta-VAE (Higgins et al. 2017): each scalar is sampled from a normal
    distribution, whose KL divergence from the standard normal is added to the loss. 1 gives the evidence lower bound,
    0 no bottleneck."""
    beta_initial: NotNegative = 0.0
    """Beta at the start of a run, annealed geometrically to `beta`; 0 keeps `beta` constant. With a high initial beta,
    units come into use one after the other, each for the factor that lowers the loss most."""
    beta_annealing: Annotated[float, Rule("choose above 0, 1 at most", lambda x: 0 < x <= 1)] = 0.4
    """Fraction of the run, 0 to 1, over which beta is annealed."""
    levels: Annotated[int, Rule("choose 2 or more, 0 for none", lambda n: n == 0 or n >= 2)] = 0
    """Bounds each scalar by tanh and rounds it to this many evenly spaced levels from -1 to 1, with straight-through
    gradients (finite scalar quantisation, Mentzer et al. 2024). 0: no rounding."""

    def __post_init__(self) -> None:
        super().__post_init__()
        annealed = self.beta > 0 or self.beta_initial == 0
        self.require("beta_initial", annealed, "encoder.beta is 0, so there is no bottleneck: set both")
        either = self.levels == 0 or self.beta == 0
        self.require("levels", either, f"encoder.beta is {self.beta} and only one bottleneck is allowed: set one to 0")

    def beta_at(self, progress: float) -> float:
        """Beta at `progress`, 0 to 1, of a run."""
        left = max(0.0, 1 - progress / self.beta_annealing)
        return self.beta * (self.beta_initial / self.beta) ** left if self.beta_initial else self.beta


@dataclass(frozen=True)
class UNetConfig(Options, group="unet"):
    """Cross-attention U-Net (Rombach et al. 2022) with Skip Dropout (Jun et al. 2025)."""

    channels: Even = 64
    """Channels of the first level."""
    multipliers: Levels = (1, 2, 4, 4)
    """Channels of each level, as multiples of `channels`; each level halves the width."""
    num_res_blocks: Count = 2
    """Residual blocks per level (one more in the up-sampling path)."""
    attention_widths: tuple[int, ...] = (16, 8, 4)
    """Widths of the feature maps that attend to the tokens; the middle block always does."""
    num_heads: Count = 8
    """Number of attention heads."""
    self_attention: bool = True
    """Whether a transformer block has self-attention before the cross-attention."""
    norm_groups: Count = 32
    """Groups of the group norms; where the channels are not a multiple of it, their greatest common divisor."""
    dropout: PartBelowOne = 0.1
    """Dropout probability inside the residual blocks."""
    skip_dropout: PartBelowOne = 0.2
    """Skip Dropout: probability of dropping a channel of a skip connection."""
    skip_dropout_widths: tuple[int, ...] = (16, 8)
    """Widths of the feature maps whose skip connections have dropout; in the published code 16 and 8 of 16, 8, 4, 2."""
    skip_dropout_mode: Literal["channel", "element"] = "channel"
    """Drop whole channels (as published) or single elements."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for multiplier in self.multipliers:
            width = self.channels * multiplier
            divides = width % self.num_heads == 0
            self.require("num_heads", divides, f"must divide the channels of every level, one has {width}")


@dataclass(frozen=True)
class TransformerConfig(Options, group="transformer"):
    """Denoiser without convolutions. For latents of few positions it is many times faster than a U-Net."""

    width: Even = 64
    """Width of the network."""
    depth: Count = 3
    """Number of blocks."""
    num_heads: Count = 4
    """Number of attention heads."""
    self_attention: bool = False
    """Whether positions attend to each other. Without it, all that positions share must come from the units."""

    def __post_init__(self) -> None:
        super().__post_init__()
        divides = self.width % self.num_heads == 0
        self.require("num_heads", divides, f"must divide transformer.width {self.width}")


@dataclass(frozen=True)
class NoiseConfig(Options, group="noise"):
    """Noise schedule (DDPM, Ho et al. 2020), prediction target, distribution of training times and loss weighting."""

    num_steps: Several = 1000
    """T, the number of noise levels."""
    beta_start: float = 0.0015
    """First beta of the scaled-linear schedule (Rombach et al. 2022)."""
    beta_end: float = 0.0155
    """Last beta."""
    prediction: Literal["noise", "v", "image", "flow"] = "noise"
    """What the denoiser predicts: `noise`, as in the paper; `v` = sqrt(abar) noise - sqrt(1 - abar) latent (Salimans
    and Ho 2022); `image`, the clean latent; `flow` = noise - latent, on a straight path that does not use the betas
    (Liu et al. 2023)."""
    weighting: Literal["none", "min_snr"] = "none"
    """Weight of the squared error at each time: `none`, 1 for the prediction; `min_snr`, min(SNR, snr_gamma) for the
    clean latent (Hang et al. 2023)."""
    snr_gamma: Positive = 5.0
    """Signal-to-noise ratio above which the weight of `min_snr` is constant."""
    times: Literal["uniform", "logit_normal"] = "uniform"
    """Distribution of the training times, in units of num_steps: uniform, or the sigmoid of a normal number (Esser et
    al. 2024)."""
    times_mean: float = 0.0
    """Mean of that normal number: above 0 gives more noise."""
    times_std: Positive = 1.0
    """Standard deviation of that normal number."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            0 < self.beta_start <= self.beta_end < 1,
            f"noise.beta_start, beta_end are {self.beta_start}, {self.beta_end}: need 0 < start <= end < 1",
        )


@dataclass(frozen=True)
class AnchorConfig(Options, group="anchors"):
    """Dynamic Gaussian Anchoring (Jun et al. 2025; docs/fidelity.md says what `corrected` corrects)."""

    mode: Literal["off", "published", "corrected"] = "corrected"
    """`off`; `published`: the arithmetic of the published code, which does not move ReLU tokens; `corrected`: tokens
    move towards their anchor."""
    space: Literal["scalar", "token"] = "scalar"
    """Space of the Gaussians (`corrected` only): each unit's scalar, or its token along its principal components. The
    number of Gaussians is selected on the scalar in both."""
    target: Literal["scalar", "anchor_token", "mean_token"] = "scalar"
    """What moves where (`corrected` in scalar space only): the scalar to the anchor's mean, before the unit's MLP; the
    token to the token of that mean; or the token to the mean token of the anchor's members."""
    lambda_max: Part = 0.1
    """Largest fraction of the way to the anchor, 0 to 1, reached at the anchor itself."""
    k_max: Count = 32
    """Maximum number of Gaussians per unit."""
    criterion: Literal["bic", "icl"] = "icl"
    """Criterion by which splits and merges are accepted: `icl`, BIC minus the entropy of the assignment, finds
    clusters; `bic` fits the shape of the density too, and gives a uniform scalar dozens of Gaussians."""
    reg_covar: Positive = 1e-6
    """Ridge on the covariances, in units of the variance of the standardised scalar (token)."""
    min_size: Several = 10
    """Gaussians with fewer points than this are dropped."""
    max_points: Several = 100_000
    """Maximum number of images for one fit, drawn at random; all images where there are fewer."""
    fit_every_images: Count = 480_000
    """The anchors are fitted every time this many images have been trained on, and at the end."""


@dataclass(frozen=True)
class ModelConfig(Options, ABC, group="model"):
    """Options that all models with units share. `MODELS` lists the families."""

    image_size: int = 64
    """Height and width of the images in pixels."""

    @property
    @abstractmethod
    def num_units(self) -> int:
        """N, the number of latent units."""


@dataclass(frozen=True)
class DiffusionConfig(ModelConfig):
    """DyGA (Jun et al. 2025), which without anchors and Skip Dropout is EncDiff (Yang et al. 2024)."""

    loss: Literal["l1", "l2"] = "l1"
    """Distance between the denoiser's prediction and its target."""
    denoiser: Literal["unet", "transformer"] = "unet"
    """The network that reconstructs the image from the units: the published `unet`, or a small `transformer`."""
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
    """Penalty added to the evidence lower bound: the KL divergence from the prior (`beta_vae`, Higgins et al. 2017),
    the total correlation, estimated from the batch (`beta_tcvae`, Chen et al. 2018) or by a discriminator
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
"""By the name of the family in saved files."""


Solver = Literal["ddim", "dpm"]


@dataclass(frozen=True)
class Sampling:
    """How images are generated from units."""

    steps: int = 20
    """Number of sampling steps; for `ddim` a divisor of the number of noise levels, 1000."""
    seed: int = 0
    """Seed of the noise, and of the choice of images where some are chosen."""
    solver: Solver = "dpm"
    """`dpm`: DPM-Solver++(2M) (Lu et al. 2022), for few steps; `ddim` (Song et al. 2021): as published, with 100
    steps."""


@dataclass(frozen=True)
class LoopConfig(Options, group="train"):
    """Training options of both stages."""

    images: Count = 48_000_000
    """Number of images to train on, all passes counted."""
    batch_size: Count = 512
    """Images per step, over all processes."""
    accumulate: Count = 1
    """Gradient accumulation: a step processes its batch in this many parts, which takes less memory. BatchNorm sees one
    part at a time."""
    lr: Positive = 1e-4
    """Learning rate of the optimiser."""
    warmup_images: CountOrZero = 0
    """Number of images over which the learning rate rises linearly from 0."""
    cooldown: Part = 0.0
    """Fraction of the run, 0 to 1, at its end, over which the learning rate falls linearly to 0."""
    clip: NotNegative = 0.0
    """Maximum norm of the gradient; 0 does not clip."""
    ema_decay: PartBelowOne = 0.9999
    """Decay of the moving average of the trained weights, min(decay, (1 + n) / (10 + n)) at update n; 0: no average."""
    log_every_images: Count = 50_000
    """Write a line to the record every time this many images have been trained on."""
    restarts: Count = 1
    """Train this many models from different initial weights for `restart_images` each, and continue with the one of
    lowest loss on the held-out images. `images` counts only those of the model that is kept."""
    restart_images: Count = 200_000
    """Number of images that each of several `restarts` trains on before one is chosen."""
    save_every_images: Count = 1_000_000
    """Save a checkpoint every time this many images have been trained on, and at the end."""
    seed: CountOrZero = 0
    """Seed of all random numbers."""
    workers: CountOrZero = 0
    """Number of processes that read images; 0 reads in the training process."""
    threads: CountOrZero = 0
    """Number of CPU threads per process; 0 leaves the choice to torch. Small models gain little from a second thread,
    and lose most of their speed on a machine that is busy with other work."""
    devices: Count = 1
    """Number of processes that train together, one per device."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Floating-point precision of the networks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        split = f"train.devices {self.devices} times train.accumulate {self.accumulate}"
        even = self.batch_size % (self.devices * self.accumulate) == 0
        self.require("batch_size", even, f"must be a multiple of {split}")
        early = self.restarts == 1 or self.restart_images < self.images
        self.require("restart_images", early, f"must be fewer than train.images, {self.images}")


@dataclass(frozen=True)
class TrainConfig(LoopConfig):
    """Training of a model with units by AdamW. The moving average is of the denoiser's (decoder's) weights."""

    weight_decay: NotNegative = 0.01
    """Weight decay of AdamW."""
    ema_encoder: bool = False
    """Whether the feature extractor has a moving average too (in the published code it has none)."""
    compile: bool = False
    """Whether to compile the networks by torch.compile."""
    cache_latents: bool = False
    """`vq` only: encode each image once, into a float16 file beside the stored images (at most data.cache_gb), and
    train on that file."""


@dataclass(frozen=True)
class RunConfig:
    """All options of a run of a model with units."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=DiffusionConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        kind = self.model.tokenizer.kind if isinstance(self.model, DiffusionConfig) else "none"
        require(
            kind == "vq" or not self.train.cache_latents,
            f"train.cache_latents needs the tokenizer `vq`, which is slow to encode: this one is `{kind}`",
        )


@dataclass(frozen=True)
class PerceptualConfig(Options, group="perceptual"):
    """Perceptual loss on VGG16 features (LPIPS, Zhang et al. 2018). You name its files: nothing is downloaded."""

    weight: NotNegative = 1.0
    """Weight of the perceptual loss; 0: none."""
    backbone: str = ""
    """VGG16 as torchvision publishes it: a state dict with features.0.weight and so on. Empty: no perceptual loss."""
    heads: str = ""
    """The linear heads of LPIPS, version 0.1, vgg: a state dict with lin0.model.1.weight and so on."""

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
    """Weight of the adversarial loss, times |gradient of the reconstruction loss| / |gradient of the adversarial loss|;
    0: no critic."""
    factor: NotNegative = 1.0
    """A further factor on the adversarial loss and on the critic's own loss."""
    start: Part = 0.0
    """Fraction of the run, 0 to 1, after which the critic is trained and the adversarial loss added."""
    channels: Count = 64
    """Channels of the first convolution; each further one doubles them, up to eight times as many."""
    layers: Count = 3
    """Number of convolutions that halve the width, including the first; they set the size of a patch."""
    lr_ratio: Positive = 1.0
    """Learning rate of the critic, in units of train.lr."""


@dataclass(frozen=True)
class VQGANConfig(Options, group="model"):
    """The VQ first stage and its losses (VQ-GAN, Esser et al. 2021). A weight of 0 leaves its loss out."""

    image_size: int = 64
    """Height and width of the images in pixels."""
    channels: Count = 3
    """Latent channels, the length of a codebook vector."""
    vq: VQConfig = field(default_factory=VQConfig)
    pixel: NotNegative = 1.0
    """Weight of the mean absolute difference of the pixels."""
    codebook: NotNegative = 1.0
    """Weight of the mean squared distance of latents and their codes, as a sum of two terms: one whose gradient moves
    the codes, one whose gradient moves the latents."""
    beta: NotNegative = 0.25
    """Further weight of one of the two terms, chosen by `beta_on`."""
    beta_on: Literal["latents", "codes"] = "latents"
    """`latents`: beta is on the commitment term (van den Oord et al. 2017); `codes`: on the other, as in the published
    code."""
    revive_after: CountOrZero = 0
    """A code that was nearest to no latent for this many batches in a row is replaced by a latent of the last batch;
    0: never."""
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.pixel > 0 or (self.perceptual.weight > 0 and bool(self.perceptual.backbone)),
            "model.pixel is 0 and there is no perceptual loss: set model.pixel above 0, or perceptual.backbone",
        )
        down = self.vq.downsample
        self.require("image_size", self.image_size % down == 0, f"the levels of the VQModel need a multiple of {down}")
        require(
            self.critic.weight == 0 or self.image_size // 2**self.critic.layers >= 3,
            f"critic.layers is {self.critic.layers}: too many for {self.image_size} px images",
        )


@dataclass(frozen=True)
class VQTrainConfig(LoopConfig):
    """Training of the VQ first stage by Adam(0.5, 0.9) (Esser et al. 2021). No moving average by default."""

    images: Count = 48_480_000
    """Number of images to train on, all passes counted."""
    batch_size: Count = 256
    """Images per step, over all processes."""
    accumulate: Count = 2
    """Gradient accumulation: a step processes its batch in this many parts, which takes less memory. BatchNorm sees one
    part at a time."""
    lr: Positive = 1.152e-3
    """Learning rate of the optimiser. The published code multiplies 4.5e-6 by the batch size, unless a flag tells it
    not to; the default is that product."""
    ema_decay: PartBelowOne = 0.0
    """Decay of the moving average of the trained weights, min(decay, (1 + n) / (10 + n)) at update n; 0: no average."""


@dataclass(frozen=True)
class VQRunConfig:
    """All options of a run of the first stage."""

    data: DataConfig = field(default_factory=DataConfig)
    model: VQGANConfig = field(default_factory=VQGANConfig)
    train: VQTrainConfig = field(default_factory=VQTrainConfig)
