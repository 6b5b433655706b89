"""What the JSON members of a PyTorch program's file may hold, as typed records: only what exports of Sizewise do.

Program.model_validate_json(content)               # `models/model.json`; ValidationError for anything else
Payloads.model_validate_json(content)              # which member holds which tensor
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from sizewise_core.errors import shown

_ATEN = """
    __and__.Scalar __ixor__.Tensor __rshift__.Scalar __rshift__.Tensor __xor__.Scalar
    _assert_tensor_metadata.default add.Tensor add_.Tensor addcmul.default alias.default amin.default
    arange.default as_strided.default bitwise_and_.Scalar bmm.default cat.default clamp.default cumsum.default
    div.Tensor embedding.default eq.Scalar eq.Tensor expand.default flatten.using_ints floor_divide.default
    ge.Scalar ge.Tensor index.Tensor index_add.default index_select.default linear.default log1p.default
    lt.Scalar matmul.default minimum.default mul.Tensor mul_.Tensor nan_to_num.default relu.default
    remainder.Scalar repeat_interleave.self_int reshape.default rsub.Scalar searchsorted.Tensor slice.Tensor
    squeeze.dim sub.Tensor sum.dim_IntList sym_size.int to.dtype transpose.int unsqueeze.default view.default
    where.ScalarOther where.ScalarSelf where.self zeros.default zeros_like.default
"""
_OF_OWN_MODELS = """
    abs.default add.Scalar avg_pool1d.default batch_norm.default chunk.default clamp_min.default div.Scalar
    div.Tensor dropout.default elu.default exp.default expand.default gelu.default hardtanh.default
    layer_norm.default leaky_relu.default log.default logsumexp.default max.dim maximum.default mean.default
    mean.dim mul.Scalar neg.default permute.default pow.Tensor_Scalar prelu.default relu_.default rsqrt.default
    scaled_dot_product_attention.default select.int selu.default sigmoid.default silu.default softmax.int
    softplus.default split.Tensor split_with_sizes.default sqrt.default squeeze.default stack.default sub.Scalar
    sum.default tanh.default unbind.int
"""
OPERATORS = frozenset(f"torch.ops.aten.{name}" for name in _ATEN.split()) | {
    "torch.ops.higher_order.wrap_with_autocast"
}
"""The operators that exports of Sizewise's own models call. Each reads and writes tensors only, within their bounds."""
ALLOWED = OPERATORS | {f"torch.ops.aten.{name}" for name in _OF_OWN_MODELS.split()}
"""With those that people's models may call beside them, of which the same is true."""

_SYMBOL = r"Symbol\('s[0-9]{1,4}', positive=True, integer=True\)"
_TERM = rf"({_SYMBOL}|Mul\(Integer\([0-9]{{1,12}}\), {_SYMBOL}\))"
# The latter are where lists begin and the last one ends.
_EXPRESSION = rf"^({_TERM}|Add\({_TERM}, Integer\(1\)\))$"
_DIMENSION = r"L\['(dense|tokens|values|lengths)'\]\.size\(\)\[[01]\]"
_SIZE = rf"({_DIMENSION}|[0-9]{{1,12}}|\([0-9]{{1,12}}\*{_DIMENSION}\))"
_LEAF = '{"type": null, "context": null, "children_spec": []}'


def _arguments(count: int) -> str:
    """How a program's arguments are described: so many tensors."""
    leaves = ", ".join([_LEAF] * count)
    return (
        '[1, {"type": "builtins.tuple", "context": "null", "children_spec": [{"type": "builtins.tuple", "context": '
        f'"null", "children_spec": [{leaves}]}}, {{"type": "builtins.dict", "context": "[]", "children_spec": []}}]}}]'
    )


_ARGUMENTS = frozenset(map(_arguments, (2, 4)))  # with two more for lists
_Result = Literal['[1, {"type": null, "context": null, "children_spec": []}]']

Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=200)]
Dotted = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$", max_length=300)]
Integer = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Positive = Annotated[int, Field(ge=0, le=2**48)]
Kind = Annotated[int, Field(ge=0, le=99)]  # of PyTorch's own enumerations


def _no_pickle(is_one: bool) -> bool:
    if is_one:
        raise ValueError("a pickle")
    return is_one


def _known_arguments(spec: str) -> str:
    if spec not in _ARGUMENTS:
        raise ValueError("other arguments than rows")
    return spec


def _known_operator(target: str) -> str:
    if target not in ALLOWED:
        raise ValueError(f"operator {shown(target)}")
    return target


class RefusedError(ValueError):
    """Something in an archive that no export holds."""


class _Exact(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _One(_Exact):
    """An object with exactly one field, whose name says what the object is."""

    @model_validator(mode="after")
    def _is_one(self) -> "_One":
        if len(self.model_fields_set) != 1:
            raise ValueError("not one of its kinds")
        return self


class _Named(_Exact):
    name: Name


class _Device(_Exact):
    type: Literal["cpu"]
    index: None


class _Hint(_Exact):
    as_int: Integer


class _Expression(_Exact):
    expr_str: Annotated[str, Field(pattern=_EXPRESSION)]
    hint: _Hint | None = None


class _Size(_One):
    as_int: Integer = 0
    as_expr: _Expression | None = None


class _NamedSize(_One):
    as_name: Name = ""
    as_int: Integer = 0


class _Tensor(_Exact):
    """Type, shape and place of a tensor."""

    dtype: Kind
    sizes: Annotated[list[_Size], Field(max_length=16)]
    requires_grad: bool
    device: _Device
    strides: Annotated[list[_Size], Field(max_length=16)]
    storage_offset: _Size
    layout: Kind


class _GraphArgument(_Exact):
    name: Name
    graph: "_Graph"


class _Argument(_One):
    as_tensor: _Named | None = None
    as_tensors: list[_Named] = []
    as_int: Integer = 0
    as_ints: list[Integer] = []
    as_float: float | Literal["Infinity", "-Infinity", "NaN"] = 0.0
    as_bool: bool = False
    as_none: bool = True
    as_string: Literal["cpu"] = "cpu"
    as_scalar_type: Kind = 0
    as_layout: Kind = 0
    as_device: _Device | None = None
    as_sym_int: _NamedSize | None = None
    as_sym_ints: list[_NamedSize] = []
    as_optional_tensors: list["_OptionalTensor"] = []
    as_graph: _GraphArgument | None = None


class _OptionalTensor(_One):
    as_tensor: _Named | None = None
    as_none: bool = True


class _Input(_Exact):
    name: Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$", max_length=100)]
    arg: _Argument
    kind: Kind | None = None


class _Node(_Exact):
    target: Annotated[str, AfterValidator(_known_operator)]
    inputs: list[_Input]
    outputs: list[_Argument]
    metadata: Annotated[dict[str, str], AfterValidator(lambda stack_traces: {})]
    is_hop_single_tensor_return: bool | None = None
    name: Name | None = None


class _Graph(_Exact):
    inputs: list[_Argument]
    outputs: list[_Argument]
    nodes: list[_Node]
    tensor_values: dict[Name, _Tensor]
    sym_int_values: dict[Name, _Size]
    sym_bool_values: Annotated[dict[str, Any], Field(max_length=0)]
    is_single_tensor_return: bool
    custom_obj_values: Annotated[dict[str, Any], Field(max_length=0)]
    sym_float_values: Annotated[dict[str, Any], Field(max_length=0)] = {}


class _Parameter(_Exact):
    arg: _Named
    parameter_name: Dotted


class _Buffer(_Exact):
    arg: _Named
    buffer_name: Dotted
    persistent: bool


class _User(_Exact):
    arg: _Argument


class _InputSpec(_One):
    parameter: _Parameter | None = None
    buffer: _Buffer | None = None
    user_input: _User | None = None


class _OutputSpec(_One):
    user_output: _User | None = None


class _Signature(_Exact):
    input_specs: list[_InputSpec]
    output_specs: list[_OutputSpec]


class _CallSignature(_Exact):
    inputs: Annotated[list[Any], Field(max_length=0)]
    outputs: Annotated[list[Any], Field(max_length=0)]
    in_spec: Annotated[str, AfterValidator(_known_arguments)]
    out_spec: _Result
    forward_arg_names: list[Literal["dense", "tokens", "values", "lengths"]]


class _Call(_Exact):
    fqn: Literal[""] | Dotted
    signature: _CallSignature | None = None


class _Module(_Exact):
    graph: _Graph
    signature: _Signature
    module_call_graph: list[_Call]
    metadata: Annotated[dict[str, str], Field(max_length=0)] = {}
    treespec_namedtuple_fields: Annotated[dict[str, Any], Field(max_length=0)] = {}


class _Range(_Exact):
    min_val: Integer | None
    max_val: Integer | None


class _Version(_Exact):
    major: Kind
    minor: Kind


class Program(_Exact):
    """`models/model.json`."""

    graph_module: _Module
    opset_version: dict[Literal["aten"], Kind]
    range_constraints: dict[Annotated[str, Field(pattern=r"^s[0-9]{1,4}$")], _Range]
    schema_version: _Version
    verifiers: list[Literal["TRAINING"]] = []
    torch_version: Annotated[str, Field(pattern=r"^[0-9A-Za-z.+_-]{1,60}$")] = ""
    guards_code: list[Annotated[str, Field(pattern=rf"^{_SIZE} (==|>=|<=) {_SIZE}$")]] = []


class _Payload(_Exact):
    path_name: Annotated[str, Field(pattern=r"^(weight|tensor)_[0-9]{1,5}$")]
    is_param: bool
    use_pickle: Annotated[bool, AfterValidator(_no_pickle)]
    tensor_meta: _Tensor


class Payloads(_Exact):
    """`model_weights_config.json` and `model_constants_config.json`: which member holds which tensor."""

    config: dict[Dotted, _Payload]

    def check(self, folder: str, sizes: dict[str, int]) -> None:
        """Raise `RefusedError` where a member is absent, or has too few bytes for a tensor of its shape."""
        for name, payload in self.config.items():
            numbers = 1
            for size in payload.tensor_meta.sizes:
                numbers *= size.as_int if size.as_int > 0 and size.as_expr is None else 0
            if numbers > sizes.get(folder + payload.path_name, -1):
                raise RefusedError(f"no member of the size of {shown(name)}")
