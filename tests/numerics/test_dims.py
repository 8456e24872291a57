import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.numerics.dims import (
    Dim,
    Expr,
    ceil_div,
    evaluate,
    exact_div,
    floor_div,
    is_non_negative,
    is_positive,
    lower_bound,
    maximum,
    minimum,
    product,
    symbol,
    symbols,
    upper_bound,
)

N, M, T = symbol("N"), symbol("M", 1), symbol("T", None)
OPERATIONS = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "min": minimum,
    "max": maximum,
}
LEAVES = st.one_of(st.sampled_from([N, M, T]), st.integers(-6, 6))


@st.composite
def dims_with_a_reading(draw) -> tuple[Dim, object]:
    """A dim, and the same arithmetic on plain integers as a function of the symbols."""
    leaf = draw(LEAVES)
    reading = (lambda b: evaluate(leaf, b)) if isinstance(leaf, Expr) else (lambda b: leaf)
    dim: Dim = leaf
    for _ in range(draw(st.integers(0, 7))):
        kind = draw(st.sampled_from([*OPERATIONS, "floor", "ceil", "mod"]))
        before = reading
        if kind in OPERATIONS:
            other = draw(LEAVES)
            dim = OPERATIONS[kind](dim, other)
            plain = {"min": min, "max": max}.get(kind, OPERATIONS[kind])
            reading = lambda b, f=before, o=other, p=plain: p(f(b), evaluate(o, b))  # noqa: E731
        else:
            by = draw(st.integers(1, 5))
            if kind == "mod":
                dim = dim % by
                reading = lambda b, f=before, k=by: f(b) % k  # noqa: E731
            else:
                dim = floor_div(dim, by) if kind == "floor" else ceil_div(dim, by)
                sign = 1 if kind == "floor" else -1
                reading = lambda b, f=before, k=by, s=sign: s * (s * f(b) // k)  # noqa: E731
    return dim, reading


BINDINGS = st.fixed_dictionaries(
    {"N": st.integers(0, 40), "M": st.integers(1, 40), "T": st.integers(-40, 40)}
)


@settings(deadline=None, max_examples=400)
@given(dims_with_a_reading(), BINDINGS)
def test_a_dim_evaluates_to_what_plain_integers_give(pair, binding):
    dim, reading = pair
    if all(name[0] != "~" for name in symbols(dim)):
        assert evaluate(dim, binding) == reading(binding)


@settings(deadline=None, max_examples=400)
@given(dims_with_a_reading(), BINDINGS)
def test_what_is_proved_holds(pair, binding):
    dim, reading = pair
    number = reading(binding)
    assert not is_non_negative(dim) or number >= 0
    assert not is_positive(dim) or number >= 1
    low, high = lower_bound(dim), upper_bound(dim)
    assert low is None or low <= number
    assert high is None or number <= high


@settings(deadline=None, max_examples=300)
@given(dims_with_a_reading(), dims_with_a_reading(), BINDINGS)
def test_equal_forms_denote_equal_numbers_and_exact_division_undoes_products(x, y, binding):
    (a, read_a), (b, read_b) = x, y
    if a == b:
        assert hash(a) == hash(b)
        assert read_a(binding) == read_b(binding)
    if b != 0 and all(name[0] != "~" for name in symbols(a * b)):
        quotient = exact_div(a * b, b)
        assert quotient is not None
        assert quotient == a or evaluate(b, binding) * (evaluate(quotient, binding)) == evaluate(
            a * b, binding
        )


def test_canonical_form():
    assert N * 4 // 4 == N
    assert (N + 1) * 2 == 2 * N + 2
    assert 2 * N // 2 == N
    assert (N + M) - M == N
    assert N - N == 0
    assert (N - N).__class__ is int
    assert (N + 3) // 2 == (N + 1) // 2 + 1
    assert (6 * N + 3) // 6 == (2 * N + 1) // 2 == N
    assert ceil_div(ceil_div(N, 2), 2) == ceil_div(N, 4)
    assert ((N - 1) // 2 + 1 - 1) // 2 + 1 == (N - 1) // 4 + 1
    assert N // 2 * 2 + N % 2 == N
    assert exact_div((N + 1) * (M + 2) * 3, (M + 2) * 3) == N + 1
    assert (N * M) // N == M
    assert exact_div(N + 1, 2) is None
    assert product([]) == 1
    assert product([2, N, 3]) == 6 * N


def test_minimum_and_maximum_decide_what_is_provable():
    assert minimum(M, M // 2) == M // 2
    assert minimum(5, M) == minimum(M, 5) != 5
    assert minimum(minimum(5, M), M) == minimum(5, M)
    assert maximum(0, M - 1) == M - 1
    assert maximum(0, N - 1) != N - 1
    assert maximum(T, T - 3) == T


def test_a_division_by_zero_is_refused():
    with pytest.raises(ZeroDivisionError):
        floor_div(N, 0)
    assert exact_div(N, 0) is None


def test_size_is_capped_and_equality_survives():
    def chain(width: int) -> Dim:
        dim: Dim = 1
        for index in range(width):
            dim = dim * (symbol(f"s{index}") + symbol(f"t{index}"))
        return dim

    large = chain(40)
    assert isinstance(large, Expr)
    assert len(large.terms) <= 16
    assert large == chain(40)
    deep: Dim = N
    for index in range(200):
        deep = maximum(deep, symbol(f"d{index}")) * minimum(deep, symbol(f"e{index}"))
    assert isinstance(deep, Expr)
    assert len(repr(deep)) < 10_000
    square: Dim = N + 1
    for _ in range(100):
        square = square * square
    assert isinstance(square, Expr)


def test_text_names_the_symbols():
    dim = 2 * N * M - (N + 1) // 3 + 4
    assert symbols(dim) == {"N", "M"}
    assert evaluate(dim, {"N": 5, "M": 2}) == 22
    assert repr(dim) == "2*M*N - (N + 1)//(3) + 4"
    with pytest.raises(KeyError):
        evaluate(dim, {"N": 5})
