"""The CAD pipeline for lung nodules on CT as the literature has it: lungs, candidates, features, a classifier.

Preprocessing (`preprocessing`) -> lungs and candidates (`candidates`) -> features or cubes (`features`, `cubes`) ->
a classical or a deep classifier (`classify`, `deep`). It needs the extra ``train``, but PyTorch only for the deep one.
"""
