"""The kernel of the Triton backend; this module is imported only where Triton is installed."""

# pyright: basic, reportMissingImports=false
import triton
import triton.language as tl


__all__ = ["walk"]


@triton.jit
def walk(tensors, strides, sizes, REVERSE: tl.constexpr, PAIRED: tl.constexpr, FILL: tl.constexpr, BLOCK: tl.constexpr):
    """Walk over one chunk of one row: fill in its states, or find its end from a zero state and its product."""
    a, b, entries, out, products = tensors
    a_row, a_time, a_state = strides[0]
    b_row, b_time, b_state = strides[1]
    e_row, e_chunk, e_state = strides[2]
    o_row, o_time, o_state = strides[3]
    p_row, p_chunk, p_state = strides[4]
    length, states, chunks, span = sizes
    row = (tl.program_id(0) // chunks).to(tl.int64)
    chunk = tl.program_id(0) % chunks
    state = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    inside = state < states
    entry = entries + row * e_row + chunk * e_chunk + state * e_state
    re = tl.load(entry, mask=inside, other=0.0)
    im = re * 0
    if PAIRED:
        im = tl.load(entry + 1, mask=inside, other=0.0)
    product_re, product_im = re * 0 + 1, re * 0
    for step in range(span):
        number = (chunk * span + step).to(tl.int64)
        here = inside & (state * 0 + number < length)
        time = length - 1 - number if REVERSE else number
        factor = a + row * a_row + time * a_time + state * a_state
        inputs = b + row * b_row + time * b_time + state * b_state
        # Beyond the end of the series, a step that changes nothing.
        factor_re = tl.load(factor, mask=here, other=1.0)
        x = tl.load(inputs, mask=here, other=0.0)
        if PAIRED:
            factor_im = tl.load(factor + 1, mask=here, other=0.0)
            y = tl.load(inputs + 1, mask=here, other=0.0)
            re, im = factor_re * re - factor_im * im + x, factor_re * im + factor_im * re + y
            if not FILL:
                product_re, product_im = (
                    factor_re * product_re - factor_im * product_im,
                    factor_re * product_im + factor_im * product_re,
                )
        else:
            re = factor_re * re + x
            if not FILL:
                product_re = factor_re * product_re
        if FILL:
            result = out + row * o_row + time * o_time + state * o_state
            tl.store(result, re, mask=here)
            if PAIRED:
                tl.store(result + 1, im, mask=here)
    if not FILL:
        end = out + row * o_row + chunk * o_time + state * o_state
        product = products + row * p_row + chunk * p_chunk + state * p_state
        tl.store(end, re, mask=inside)
        tl.store(product, product_re, mask=inside)
        if PAIRED:
            tl.store(end + 1, im, mask=inside)
            tl.store(product + 1, product_im, mask=inside)
