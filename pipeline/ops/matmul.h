/* The product of two small matrices, vectorised for the processor's register width.
 *
 * The second matrix is packed: `pack` splits its columns into panels of PANEL, so that the data read by a tile of the result is contiguous
 * and stays in cache. Each element of the result is summed in the order of the depth, independently of the others: a row's result does not
 * depend on the number of rows. Notation: rows, depth and columns = sizes of a product (rows, depth) (depth, columns).
 */
#include <stddef.h>
#include <string.h>

#if defined __AVX512F__
#define VECTOR 64
#elif defined __AVX__
#define VECTOR 32
#else
#define VECTOR 16
#endif

/* Rows of a tile of two vectors per row: fills the 32 or 16 vector registers. */
#if defined __AVX512F__ || defined __aarch64__
#define TILE 8
#else
#define TILE 6
#endif

#define LANES (VECTOR / sizeof(REAL))
#define PANEL (2 * LANES)
/* Depth summed at a time: a panel of this depth fits into the L1 cache. */
#define DEPTH 256

typedef REAL vector __attribute__((vector_size(VECTOR), aligned(sizeof(REAL)), may_alias));

/* Element (i, k) is at data[i * row + k * column]. */
struct matrix {
    const REAL *data;
    size_t row, column;
};

/* Elements of a packed matrix. */
size_t packed_size(size_t depth, size_t columns)
{
    return (columns + PANEL - 1) / PANEL * PANEL * depth;
}

/* Pack a matrix into consecutive panels of (depth, PANEL), the last one zero-padded. */
void pack(REAL *panels, const REAL *data, size_t row, size_t column, size_t depth, size_t columns)
{
    for (size_t first = 0; first < columns; first += PANEL) {
        const size_t width = columns - first < PANEL ? columns - first : PANEL;
        for (size_t k = 0; k < depth; k++, panels += PANEL) {
            const REAL *from = data + k * row + first * column;
            if (column == 1 && width == PANEL) {
                memcpy(panels, from, PANEL * sizeof(REAL));
                continue;
            }
            for (size_t n = 0; n < PANEL; n++)
                panels[n] = n < width ? from[n * column] : 0;
        }
    }
}

/* Fused multiply-add must be requested: strict C11 rounds in between. */
#pragma GCC push_options
#pragma GCC optimize("fp-contract=fast")

static inline __attribute__((always_inline)) void tile(const size_t rows, REAL *c, size_t c_row, const REAL *start, size_t start_row,
                                                       struct matrix a, const REAL *restrict panel, size_t depth)
{
    vector sum[TILE][2];
#pragma GCC unroll 8
    for (size_t i = 0; i < rows; i++) {
        sum[i][0] = *(const vector *)(start + i * start_row);
        sum[i][1] = *(const vector *)(start + i * start_row + LANES);
    }
    for (size_t k = 0; k < depth; k++) {
        const vector left = *(const vector *)(panel + k * PANEL), right = *(const vector *)(panel + k * PANEL + LANES);
#pragma GCC unroll 8
        for (size_t i = 0; i < rows; i++) {
            const REAL x = a.data[i * a.row + k * a.column];
            sum[i][0] += x * left;
            sum[i][1] += x * right;
        }
    }
#pragma GCC unroll 8
    for (size_t i = 0; i < rows; i++) {
        *(vector *)(c + i * c_row) = sum[i][0];
        *(vector *)(c + i * c_row + LANES) = sum[i][1];
    }
}

static __attribute__((noinline)) void tile_of(size_t rows, REAL *c, size_t c_row, const REAL *start, size_t start_row, struct matrix a,
                                              const REAL *restrict panel, size_t depth)
{
    if (rows == TILE)
        tile(TILE, c, c_row, start, start_row, a, panel, depth);
    else if (rows == 4)
        tile(4, c, c_row, start, start_row, a, panel, depth);
    else if (rows == 2)
        tile(2, c, c_row, start, start_row, a, panel, depth);
    else
        tile(1, c, c_row, start, start_row, a, panel, depth);
}

#pragma GCC pop_options

/* Compute a tile narrower than a panel, through a full-width buffer. */
static void narrow_tile(size_t rows, REAL *c, size_t c_row, const REAL *start, size_t start_row, struct matrix a, const REAL *panel,
                        size_t depth, size_t columns)
{
    REAL whole[TILE * PANEL] = {0};
    for (size_t i = 0; i < rows; i++)
        memcpy(whole + i * PANEL, start + i * start_row, columns * sizeof(REAL));
    tile_of(rows, whole, PANEL, whole, PANEL, a, panel, depth);
    for (size_t i = 0; i < rows; i++)
        memcpy(c + i * c_row, whole + i * PANEL, columns * sizeof(REAL));
}

static size_t tile_rows(size_t left)
{
    return left >= TILE ? TILE : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

/* c = start + a b, where b is packed. c_row and start_row are row strides; start = c accumulates, start_row = 0 broadcasts a bias. */
void matmul(REAL *c, size_t c_row, const REAL *start, size_t start_row, struct matrix a, const REAL *panels, size_t rows, size_t columns,
            size_t depth)
{
    for (size_t first = 0; first < depth || first == 0; first += DEPTH) {
        const size_t deep = depth - first < DEPTH ? depth - first : DEPTH;
        for (size_t n = 0; n < columns; n += PANEL) {
            const REAL *panel = panels + n * depth + first * PANEL;
            for (size_t i = 0, many; i < rows; i += many) {
                many = tile_rows(rows - i);
                const struct matrix part = {a.data + i * a.row + first * a.column, a.row, a.column};
                if (columns - n < PANEL)
                    narrow_tile(many, c + i * c_row + n, c_row, start + i * start_row + n, start_row, part, panel, deep, columns - n);
                else
                    tile_of(many, c + i * c_row + n, c_row, start + i * start_row + n, start_row, part, panel, deep);
            }
        }
        start = c;
        start_row = c_row;
    }
}
