"""Nonlinear least squares by Levenberg-Marquardt in the dual, or Gram, form.

What a solve needs is here; beside it there are `gramlm.extend` for those who write parts of their
own, `gramlm.diagnostics` and `gramlm.uncertainty`. The names are listed in `__init__.pyi`, and each
is imported when it is first asked for: what is not used costs no time.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
