"""The CAD pipeline for lung nodules on CT as the literature has it: lungs, candidates, features, a classifier.

`preprocessing` -> `candidates` -> `features` and `classify`, or the network of `deep`; `scans` has the CT that are
learned from and judged, `judging` the figures. It needs the extra ``train``, but PyTorch only for `deep`.
"""
