"""What every setting of ``conf/`` may be. Bounds are far beyond what is of use: what exceeds them is a mistake."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from launch.rules import GROUP_RULE, Rule, number, several, text, truth, whole
from utils.machine import as_size, most_processes, total_memory

MANY = 10**9
COUNT = whole(1, 10**6)
PERIOD = whole(1, MANY)
PERIOD_OR_NULL = whole(1, MANY, None)
SEED = whole(0, 2**32 - 1)
WIDTH = whole(1, 2**16)
SIDE = whole(1, 4096)  # pixels of an image
PROCESSES = whole(0, most_processes(), None)
POSITIVE = number(0, 1e6, above=True)
AT_LEAST_0 = number(0, 1e6)
SHARE = number(0, 1)
LIMIT = number(0, MANY, None, above=True)
CHOICE = truth("auto")
PIXELS = several(number(0, 512), 2, 2)
COORDINATES = several(whole(0, 64), 2, 2)


def _table(*rows: tuple[Rule, str]) -> dict[str, Rule]:
    return {key: rule for rule, keys in rows for key in keys.split()}


RULES = _table(
    (GROUP_RULE, "training model adversarial env simulator dataset collector encoder predictor decoder action_encoder "
                 "proprio_encoder palettes initnet method regularizer logger planner sub_planner objective speed"),
    # runs
    (text(), "ckpt_path run_dir device precision speed.cpu_products goal_source env.name"),
    (text(None), "goal_file_path data_path latent_dir encoder.weights image_dtype "
                 "logger.entity logger.name logger.group"),
    (several(text(), 0, 100), "logger.tags"),
    (text(), "logger.project logger.mode simulator.simulator"),
    (truth(), "from_scratch debug dry_run debug_dset_init unsolved_starts_only normalize_action"),
    (text(), "env.id simulator.id dataset.name"),
    (SEED, "seed split_seed"),
    (whole(0, 2**31 - 1), "training.seed"),
    (whole(1, most_processes(), None), "num_threads num_workers"),
    (PROCESSES, "env.num_workers simulator.num_workers"),
    (number(0, 1e6, "auto", above=True), "memory_budget_gb"),
    (AT_LEAST_0, "disk_patience_minutes"),
    # training
    (COUNT, "training.epochs"),
    (whole(1, 2**16), "training.batch_size"),
    (PERIOD, "training.val_batches training.save_every_x_batch training.save_every_x_epoch"),
    (PERIOD_OR_NULL, "training.max_batches training.decoder_frames"),
    (whole(0, 1000), "training.num_reconstruct_samples"),
    (POSITIVE, "encoder_lr action_encoder_lr decoder_lr initnet_lr"),
    (number(0, 1e6, None, above=True), "predictor_lr"),
    (AT_LEAST_0, "weight_decay"),
    (text(), "schedule latent_cache latent_dtype"),
    (truth(), "speed.fast_dropout speed.fused_optimizers train_encoder train_predictor"),
    (truth(None), "train_decoder"),
    # methods
    (text(), "radii_method perturbation tasks replay_sampling"),
    (AT_LEAST_0, "visual_eps_factor proprio_eps_factor action_eps_factor goal_weight"),
    (whole(1, 10**4), "pgd_steps pairs"),
    (SHARE, "clean_weight"),
    (number(0, 1, above=True), "rollout_discount"),
    (whole(1, 1000), "rollout_steps"),
    (PERIOD, "replay_buffer_frequency"),
    (whole(1, 10**7), "replay_capacity"),
    (whole(1, 1000, None), "frame_stride"),
    (truth(), "overlap"),
    (AT_LEAST_0, "variance_weight covariance_weight slowness_weight"),
    # the model
    (whole(1, 1000), "N num_hist num_pred frameskip"),
    (SIDE, "img_size image_size"),
    (whole(0, 1), "concat_dim"),
    (whole(1, 4096), "action_emb_dim proprio_emb_dim dim_head emb_dim"),
    (whole(1, 100), "num_action_repeat num_proprio_repeat"),
    (truth(), "has_predictor has_decoder use_3d_pos quantize download"),
    (whole(1, 1000), "depth heads num_frames tubelet_size"),
    (whole(1, 1000, None), "encoder.depth encoder.num_heads"),
    (whole(1, 1000), "ResNetEncoder.depth"),
    (whole(1, 4096, None), "encoder.embed_dim"),
    (WIDTH, "width mlp_dim channel n_embed n_res_channel"),
    (whole(0, 1000), "n_res_block"),
    (number(0, 0.99), "dropout emb_dropout"),
    (text(), "pool encoder.name feature_key colours"),
    (several(several(number(-100, 100), 4, 4), 1, 16), "palettes.rgb palettes.wall palettes.pusht palettes.point_maze"),
    # planning
    (whole(0, MANY, "latest"), "model_epoch"),
    (whole(1, 10**5), "n_evals"),
    (whole(1, 10**4), "goal_H"),
    (whole(0, 1000), "n_plot_samples"),
    (whole(1, 1000), "horizon n_taken_actions memory"),
    (COUNT, "opt_steps gd_opt_steps cem_opt_steps num_samples topk num_starts grad_steps"),
    (whole(1, 10**6, None), "max_iter"),
    (whole(0, 10**6), "keep_elites"),
    (PERIOD, "eval_every"),
    (PERIOD_OR_NULL, "budget_evals"),
    (LIMIT, "budget_ms time_limit_minutes"),
    (POSITIVE, "lr var_scale temperature longest_step"),
    (AT_LEAST_0, "action_noise alpha noise_beta"),
    (number(0, 1e6, None, above=True), "base objective.temperature"),
    (truth(None), "first_frame"),
    (SHARE, "momentum cem_share noise_decay cross_term"),
    (truth(), "clip_actions relative_temperature reuse_history prepare_weights"),
    (text(), "sample_type optimizer_type rollout_type mode shrinking"),
    (CHOICE, "speed.pad_widths kernels speed.compile capture speed.cpu_kernels"),
    # environments and data
    (whole(1, 100), "env_action_dim proprio_dim state_dim"),
    (whole(1, 10**7, None), "n_rollout n_val"),
    (whole(1, 10**6, None), "num_steps chunk_size"),
    (number(0, 1), "split_ratio landmark_share"),
    (POSITIVE, "max_force step_std heading_noise simulator.radius"),
    (several(whole(0, 99), 1, 100, None), "simulator.proprio"),
    (number(-1e6, 1e6), "collector.low collector.high"),
    (whole(1, 10**4), "collector.hold"),
    (AT_LEAST_0, "step_mean step_min step_max"),
    (text(), "heading_distribution"),
    (COORDINATES, "door_range wall_range"),
    (PIXELS, "start_range target_range"),
    (several(number(0, 512), 1, 1000), "noise_levels"),
    (whole(1, 10**6), "min_steps"),
    (Rule(list, 1, 100, item=text(), alone=True), "shape"),
    (PIXELS, "PushTScriptedPusher.speed"),  # elsewhere a group of planning
)  # fmt: skip
"""Rules of settings, by the end of a key or "Class.setting"; see ``launch.rules.check_values``."""

FACTS = ("env.name", "env.env_action_dim", "env.proprio_dim", "env.state_dim")
"""What an environment is; its file says it, and nothing else can."""


def check_memory(config: Mapping[str, Any]) -> None:
    """Refuse a batch, plan or trajectory of which not even the numbers fit into this machine's memory.

    Args:
        config: one that ``RULES`` allow.

    Raises:
        ValueError: Naming the keys that make the size.
    """
    for keys, needed in _sizes(config):
        if needed > total_memory():
            values = ", ".join(f"{key}={_value(config, key)}" for key in keys)
            raise ValueError(
                f"{values}: that takes {as_size(needed)} of memory at least, and this machine has "
                f"{as_size(total_memory())}; lower one of them"
            )


def _sizes(config: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Keys that make a size together, and its bytes; what a config leaves to a default counts as one."""

    def product(*keys: str) -> int:
        return math.prod(max(1, _value(config, key) or 1) for key in keys)

    for image in ("img_size", "image_size"):
        for count in (("training.batch_size", "N"), ("num_steps",)):
            yield (*count, image), 3 * product(*count) * product(image) ** 2
    for planner in ("planner", "planner.sub_planner"):
        for samples in ("num_samples", "num_starts"):
            keys = ("n_evals", f"{planner}.{samples}", f"{planner}.horizon")
            yield keys, 8 * product(*keys)  # two numbers of four bytes


def _value(config: Mapping[str, Any], key: str) -> Any:
    node: Any = config
    for name in key.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    return node
