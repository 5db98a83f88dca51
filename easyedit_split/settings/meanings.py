"""Other words for our keys: what people who come from other tools write."""

from __future__ import annotations

_STRENGTH = "the strength is m: give -m M to generate or evaluate, factors=[...] to sweep, multipliers=[M] in a file"

_WORDS = {
    "lr": "learning_rate learnrate step_size eta",
    "n_epochs": "epochs epoch num_epochs num_train_epochs max_epochs",
    "batch_size": "bs batch per_device_train_batch_size train_batch_size",
    "gradient_accumulation_steps": "grad_accum accumulation_steps gradient_accumulation accumulate",
    "weight_decay": "wd decay l2",
    "layers": "layer layer_id layer_idx",
    "joint": "together jointly several_layers multi_layer",
    "low_rank_dimension": "rank r lora_rank lora_r lora_dim",
    "intervention_method": "form method steering_form kind",
    "intervention_components": "component site module target_module target_modules",
    "alg_name": "objective algorithm alg loss",
    "model_name_or_path": "model model_name model_path base_model model_id pretrained checkpoint",
    "train_data": "data dataset train train_file train_path train_dataset pairs",
    "test_data": "test test_file test_path test_dataset eval_data eval_file valid_data",
    "output_dir": "out output out_dir save_dir save_path output_path folder",
    "overwrite": "force replace clobber overwrite_output_dir",
    "factors": "grid strengths sweep_factors ms",
    "pos_loss_weight": "lambda_p positive_weight",
    "neg_loss_weight": "lambda_n negative_weight",
    "margin_penalty_weight": "gamma margin_weight",
    "margin_threshold": "theta margin",
    "preference_pairs": "directions direction",
    "concept_id": "concept",
    "max_new_tokens": "max_tokens max_length new_tokens num_tokens",
    "max_num_of_examples": "n_examples max_examples limit num_examples max_samples max_train_samples n_train",
    "use_chat_template": "chat chat_template apply_chat_template",
    "dtype": "precision torch_dtype fp16 bf16",
    "system_prompt": "system",
    "device_map": "devices",
    "seed": "random_seed random_state",
    _STRENGTH: "alpha m strength coefficient coeff coef scale steering_strength steering_factor intensity",
}
MEANINGS = {word: key for key, words in _WORDS.items() for word in words.split()}
