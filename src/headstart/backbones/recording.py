"""The graph of a PyTorch network at the level of its blocks, with the value of every node for one batch.

`torch.fx` follows a network's own Python code with placeholders for tensors. Here each placeholder also has
its value for one batch, so sizes are numbers (except how many images there are) and code that branches on
them can be followed.
"""

import operator
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

_OPENED_SHARE = 0.85
"""A module with this share of the arithmetic is no layer but the network itself: its parts are looked at."""

_WITH_STEM_AND_HEAD = 3
"""So are those of the only module that holds a row of modules, with at most a stem and a head beside it."""


_ONE_AT_A_TIME = threading.Lock()
"""While it follows a network, `torch.fx` replaces how modules are called, in the whole process."""


@dataclass(frozen=True)
class Recording:
    """A network's forward pass as a graph."""

    graph: fx.Graph  # its modules are those of the network
    values: Mapping[fx.Node, Any]  # of every node, for the batch that was recorded
    from_image: Collection[fx.Node]  # those that the image decides; the others are weights and made of them
    from_batch: Collection[fx.Node]  # of those, numbers and devices that another batch may change
    work: Mapping[str, int]  # multiply-adds of each called module for one image, by its name


def record(model: nn.Module, images: torch.Tensor, *, deeper: bool = False) -> Recording:
    """Follow ``model`` with ``images``; modules are nodes unless nearly all of the network is inside them.

    Args:
        model: In eval mode.
        images: ``[N, 3, S, S]``, normalised.
        deeper: Look at the parts of one module more, the one with the most arithmetic.

    Raises:
        Exception: What the network's code raises where it cannot be followed.
    """
    with torch.no_grad():
        work = _work_by_module(model, images)
        opened = _opened(model, work)
        if deeper:
            called = _called_in(model.get_submodule(opened[-1]), opened[-1], work)
            opened.append(max(called, key=work.__getitem__))
        recorder = _Recorder(images, opened=opened)
        with _ONE_AT_A_TIME:
            graph = recorder.trace(model)
    return Recording(graph, recorder.values, recorder.from_image, recorder.from_batch, work)


def matrices(module: nn.Module) -> int:
    """How many weights of convolutions and matrix products a module has."""
    return sum(weight.ndim > 1 and weight.numel() > max(weight.shape) for weight in module.parameters())


def carries(value: Any) -> bool:
    """Whether a value holds a tensor, or nothing, as of a call for its effect; numbers and devices do not."""
    if isinstance(value, tuple | list):
        return any(map(carries, value))
    return not isinstance(value, int | float | torch.device | torch.dtype)


# ------------------------------------------------------------------------------------------ modules


def _work_by_module(model: nn.Module, images: torch.Tensor) -> dict[str, int]:
    """Multiply-adds with weights for one image, by the names of the called modules; "" has them all."""
    names = {module: name for name, module in model.named_modules() if name}
    work: Counter[str] = Counter()

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        del inputs
        name = names[module]
        work[name] += 0  # called, if without work
        for weight in module.parameters(recurse=False) if isinstance(output, torch.Tensor) else ():
            if weight.ndim > 1:
                done = weight.numel() * (output[0].numel() // len(weight))
                ends = [place for place, letter in enumerate(name) if letter == "."]
                work.update(dict.fromkeys(["", *(name[:end] for end in ends), name], done))

    handles = [module.register_forward_hook(count) for module in names]
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()
    return dict(work)


def _opened(model: nn.Module, work: Mapping[str, int]) -> list[str]:
    """Names of the modules that are the network itself, from the outside to the inside."""
    opened = [""]
    while True:
        layered = _layered_in(model, opened[-1], work)
        rows = [name for name in layered if len(_layered_in(model, name, work)) > 1]
        most = [name for name in layered if work[name] >= _OPENED_SHARE * work[opened[-1]]]
        if len(rows) == 1 and len(layered) <= _WITH_STEM_AND_HEAD:
            opened += rows
        elif most or len(layered) == 1:
            opened += most or layered
        else:
            return opened


def _layered_in(model: nn.Module, name: str, work: Mapping[str, int]) -> list[str]:
    """The modules with layers inside that a module calls itself."""
    called = _called_in(model.get_submodule(name), name, work)
    return [each for each in called if matrices(model.get_submodule(each)) > 1]


def _called_in(module: nn.Module, name: str, work: Mapping[str, int]) -> list[str]:
    """The modules that a module calls itself: below it, with no called one in between."""
    found: list[str] = []
    for child_name, child in module.named_children():
        path = f"{name}.{child_name}".lstrip(".")
        found += [path] if path in work else _called_in(child, path, work)
    return found


# ------------------------------------------------------------------------------------------ nodes


class _Known(fx.Proxy):
    """A placeholder whose value for one batch is known."""

    tracer: "_Recorder"

    def __getattr__(self, name: str) -> Any:
        value = self.tracer.values.get(self.node)
        if isinstance(value, torch.Tensor):
            if name == "shape":
                return self.size()
            if name in ("dtype", "ndim", "is_cuda", "requires_grad", "layout", "itemsize"):
                return getattr(value, name)
        return super().__getattr__(name)

    def size(self, dim: int | None = None) -> Any:
        """Numbers, except the first where the image decides the tensor: how many images there are."""
        sizes: list[Any] = list(self.tracer.values[self.node].shape)
        if sizes and self.node in self.tracer.from_image:
            sizes[0] = self.tracer.create_proxy("call_method", "size", (self, 0), {})
        return tuple(sizes) if dim is None else sizes[dim]

    def dim(self) -> int:
        """How many dimensions."""
        return int(self.tracer.values[self.node].ndim)

    def __iter__(self) -> Iterator[Any]:
        take: Any = self.__getitem__  # of fx, which adds the operators later
        return iter([take(position) for position in range(len(self))])

    def __len__(self) -> int:
        return len(self.tracer.values[self.node])


def _has_proxy(argument: Any) -> bool:
    if isinstance(argument, dict):
        argument = [*argument.values()]
    return (
        any(map(_has_proxy, argument))
        if isinstance(argument, list | tuple)
        else isinstance(argument, fx.Proxy)
    )


class _Recorder(fx.Tracer):
    """Computes each node as it is made."""

    def __init__(self, images: torch.Tensor, *, opened: Collection[str]) -> None:
        super().__init__()
        self.values: dict[fx.Node, Any] = {}
        self.from_image: set[fx.Node] = set()
        self.from_batch: set[fx.Node] = set()
        self._images, self._opened, self._computing = images, opened, False

    def create_args_for_root(self, root_fn: Any, *_: Any, **__: Any) -> tuple[Any, list[Any]]:
        """Images, and nothing else that the network's ``forward`` might take."""
        return root_fn, [self.root, self.create_proxy("placeholder", "image", (), {})]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one node."""
        del m
        return module_qualified_name not in self._opened

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Not recorded are calls without placeholders: inside a node, or of another thread."""
        if self._computing or not _has_proxy((args, kwargs)):
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        """Weights are nodes where the network's own code reads them."""
        if self._computing or not isinstance(attr_val, torch.Tensor):
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """A placeholder for a node."""
        return _Known(node, self)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **more: Any) -> Any:
        """Make a node and compute its value, now, since what follows may overwrite what it is made of."""
        made = super().create_proxy(kind, target, args, kwargs, *rest, **more)
        node = made.node
        if kind == "placeholder" or any(each in self.from_image for each in node.all_input_nodes):
            self.from_image.add(node)
        for each in (*node.all_input_nodes, node):
            self._value_of(each)
        if not carries(self.values[node]) and self._asks_the_batch(node):
            self.from_batch.add(node)
        return made

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Which way the network's code goes."""
        return bool(self._value_of(obj.node))

    def _asks_the_batch(self, node: fx.Node) -> bool:
        asked = (node.op, node.target) == ("call_method", "size") or node.target is getattr
        return asked or any(each in self.from_batch for each in node.all_input_nodes)

    def _value_of(self, node: fx.Node) -> Any:
        if node not in self.values:
            self._computing = True
            try:
                self.values[node] = self._computed(node)
            finally:
                self._computing = False
        return self.values[node]

    def _computed(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return self._images
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(self.root)
        args, kwargs = self._known(node.args), self._known(node.kwargs)
        if node.op == "call_module":
            return self.root.get_submodule(str(node.target))(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        function: Any = node.target
        return function(*args, **kwargs)

    def _known(self, argument: Any) -> Any:
        """An argument with values for nodes, in lists that may be changed."""
        if isinstance(argument, fx.Node):
            return self.values[argument]
        if isinstance(argument, dict):
            return {name: self._known(each) for name, each in argument.items()}
        if isinstance(argument, slice):
            return slice(*map(self._known, (argument.start, argument.stop, argument.step)))
        if isinstance(argument, list | tuple):
            return (list if isinstance(argument, list) else tuple)(map(self._known, argument))
        return argument
