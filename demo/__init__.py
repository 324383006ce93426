"""The whole story on one machine: collect, pretrain, finetune, evaluate, report."""
