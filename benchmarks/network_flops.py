"""Work of the network in floating-point operations, counted by its sizes."""

from xwam.model.autoencoders import SmallAutoencoder
from xwam.model.wan import WanAutoencoderConfig
from xwam.wam import ModelConfig


def stride_of(config: ModelConfig) -> int:
    """Pixels to a latent, along each side."""
    sizes = config.autoencoder
    return 2 ** len(sizes.dim_mult) if isinstance(sizes, WanAutoencoderConfig) else SmallAutoencoder.spatial_stride


def network_flops(config: ModelConfig) -> int:
    """Of the network's step for one sample: a forward with depth, and a backward of twice as much."""
    return 3 * (forward_flops(config) + text_flops(config))


def text_flops(config: ModelConfig) -> int:
    """Of a text's way into the network, which sampling goes once a request."""
    c, D, L = config.transformer, config.transformer.width, config.transformer.text_tokens
    return 2 * L * D * (2 * (c.blocks + c.depth_blocks) * D + c.text_width + D)


def forward_flops(config: ModelConfig) -> int:
    """Of the network's forward for one sample whose text is prepared, with depth if the network has it."""
    c, stride = config.transformer, stride_of(config)
    D, L, (_, *patch) = c.width, c.text_tokens, c.patch
    height, width = (side // stride // cell for side, cell in zip(config.image_size, patch, strict=True))
    video, P = config.latent_frames * c.views * height * width, c.latent_channels * patch[0] * patch[1]
    A, S = config.actions, config.frames
    tokens = video + A + S

    def block(asking: int, asked: int) -> int:
        """Projections and feed-forward layer of each token, and both attentions."""
        return asking * (6 * D * D + 2 * D * c.ffn_width) + 2 * D * asking * (asked + L)

    ends = (2 + (c.depth_blocks > 0)) * video * P * D
    ends += 2 * D * (A * (c.action_width + D) + S * (c.proprio_width + D))
    levels = 3 * D * (c.frequency_width + 7 * D)
    products = c.blocks * block(tokens, tokens) + c.depth_blocks * block(video, video + tokens) + ends + levels
    return 2 * products
