"""Has what a file says the form that was agreed?

What JSON gives can be anything, and a damaged or foreign file should be told by one sentence that
names the field. A form is written like an example of it:

    int, float, str, bool        a value of this type (a float also a whole number, but finite)
    range(1, 10)                 a whole number of these
    object                       anything
    [form]                       a list of it
    {str: form}                  names of any kind, each with it
    {"lr": form, "step": form}   at least these names
    (form, form)                 one of them
    None, "sum", 3.5             the value itself; None also if the name is missing
"""
import json
import sys

from .errors import UserError

COUNT = range(1 << 53)                     # a whole number that a float can hold


def check(value, form, where):
    """Raise UserError, which names `where` and the field, unless a value has a form."""
    wrong = misfit(value, form, "")
    if wrong:
        raise UserError(f"{where}: {wrong}")


def misfit(value, form, at):
    """In words, where a value differs from a form; or None. at: the name of the value."""
    if isinstance(form, tuple):
        wrong = [misfit(value, one, at) for one in form]
        return None if None in wrong else wrong[-1]
    if isinstance(form, list) and isinstance(value, list):
        parts = [(item, form[0], f"{at}[{i}]") for i, item in enumerate(value)]
    elif isinstance(form, dict) and isinstance(value, dict):
        wanted = dict.fromkeys(value, form[str]) if str in form else form
        parts = [(value.get(name), wanted[name], f"{at}.{name}".lstrip(".")) for name in wanted]
    else:
        return None if _is(value, form) else f"{at or 'it'} is {_brief(value)}"
    return next(filter(None, (misfit(*part) for part in parts)), None)


def _is(value, form):
    if form is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
    if isinstance(form, range):
        return type(value) is int and value in form
    if isinstance(form, type):
        return form is object or type(value) is form
    return not isinstance(form, (list, dict)) and value == form


def _brief(value):
    text = json.dumps(value)
    return text if len(text) < 40 else text[:37] + "..."
