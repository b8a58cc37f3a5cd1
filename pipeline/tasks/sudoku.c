/* Sudoku of sides 4, 6 and 9: generate minimal puzzles, solve, transform by symmetries, and hash up to symmetry.
 *
 * Called through ctypes from sudoku.py. A board is `side * side` bytes in row-major order, 0 blank or a digit 1..side; boards of a call
 * are contiguous. Candidates of a cell are a bit mask, bit d-1 for digit d. A unit is a row, a column or a box: 3 * side in all.
 */
#include <string.h>

#include "random.h"

enum { MOST_SIDE = 9, MOST_CELLS = 81 };

struct geometry {
    uint32_t side, cells, box_rows, box_columns;
    uint16_t all;                      /* every digit */
    uint8_t units[MOST_CELLS][3];      /* row, column and box of each cell, as numbers of units */
    uint8_t first[MOST_CELLS];         /* 0, 1, 2, ... */
};

/* A search node: the digits used in each unit, and the empty cells. */
struct node {
    uint16_t used[3 * MOST_SIDE];
    uint8_t grid[MOST_CELLS], empty[MOST_CELLS];
    uint32_t empties;
};

struct search {
    const struct geometry *shape;
    uint64_t *random;                  /* NULL: digits are tried in ascending order */
    uint16_t allowed[MOST_CELLS];      /* digits that each cell may take besides its units' rules */
    uint32_t most, solutions;          /* stop after `most` solutions */
    uint32_t guesses, first_guesses;   /* digits tried in all, and until the first solution */
    uint8_t *solution;                 /* the first */
};

static struct geometry geometry_of(uint32_t side)
{
    struct geometry shape = {.side = side, .cells = side * side, .all = (uint16_t)((1u << side) - 1)};
    shape.box_rows = side == 9 ? 3 : 2;
    shape.box_columns = side / shape.box_rows;
    for (uint32_t cell = 0; cell < shape.cells; cell++) {
        const uint32_t row = cell / side, column = cell % side;
        shape.units[cell][0] = (uint8_t)row;
        shape.units[cell][1] = (uint8_t)(side + column);
        shape.units[cell][2] = (uint8_t)(2 * side + row / shape.box_rows * shape.box_rows + column / shape.box_columns);
        shape.first[cell] = (uint8_t)cell;
    }
    return shape;
}

static inline void place(struct node *node, const uint8_t *units, uint32_t cell, uint16_t digit)
{
    node->used[units[0]] |= digit;
    node->used[units[1]] |= digit;
    node->used[units[2]] |= digit;
    node->grid[cell] = (uint8_t)(__builtin_ctz(digit) + 1);
}

static inline uint16_t candidates(const struct search *search, const struct node *node, const uint8_t *units, uint32_t cell)
{
    return (uint16_t)(search->allowed[cell] & ~(node->used[units[0]] | node->used[units[1]] | node->used[units[2]]));
}

/* Fill in the givens; return 0 where two equal ones share a unit. */
static int start(const struct geometry *shape, struct node *node, const uint8_t *board)
{
    memset(node, 0, sizeof *node);
    for (uint32_t cell = 0; cell < shape->cells; cell++) {
        const uint8_t *units = shape->units[cell];
        if (!board[cell]) {
            node->empty[node->empties++] = (uint8_t)cell;
            continue;
        }
        const uint16_t digit = (uint16_t)(1u << (board[cell] - 1));
        if ((node->used[units[0]] | node->used[units[1]] | node->used[units[2]]) & digit)
            return 0;
        place(node, units, cell, digit);
    }
    return 1;
}

/* Place every naked single and see which digits have one cell left in a unit. Returns 0 at a contradiction, 1 if nothing was placed, else 2.
 * once, twice: digits that at least one cell of the unit may take, and at least two. What is placed on the way leaves them too large, never
 * too small. */
static int naked_singles(const struct search *search, struct node *node, uint16_t *once, uint16_t *twice)
{
    const struct geometry *shape = search->shape;
    uint32_t kept = 0;
    const uint32_t before = node->empties;
    memset(once, 0, sizeof(uint16_t) * 3 * MOST_SIDE);
    memset(twice, 0, sizeof(uint16_t) * 3 * MOST_SIDE);
    for (uint32_t index = 0; index < before; index++) {
        const uint32_t cell = node->empty[index];
        const uint8_t *units = shape->units[cell];
        const uint16_t found = candidates(search, node, units, cell);
        if (!found)
            return 0;
        if (!(found & (found - 1))) {
            place(node, units, cell, found);
            continue;
        }
        node->empty[kept++] = (uint8_t)cell;
        for (int kind = 0; kind < 3; kind++) {
            twice[units[kind]] |= once[units[kind]] & found;
            once[units[kind]] |= found;
        }
    }
    node->empties = kept;
    for (uint32_t unit = 0; unit < 3 * shape->side; unit++)
        if ((once[unit] | node->used[unit]) != shape->all)
            return 0;
    return kept == before ? 1 : 2;
}

/* Place every digit that has one cell left in a unit. Returns as naked_singles. */
static int hidden_singles(const struct search *search, struct node *node, uint16_t *once, const uint16_t *twice)
{
    const struct geometry *shape = search->shape;
    uint32_t kept = 0;
    const uint32_t before = node->empties;
    uint16_t any = 0;
    for (uint32_t unit = 0; unit < 3 * shape->side; unit++)
        any |= once[unit] &= (uint16_t)~twice[unit];
    if (!any)
        return 1;
    for (uint32_t index = 0; index < before; index++) {
        const uint32_t cell = node->empty[index];
        const uint8_t *units = shape->units[cell];
        const uint16_t single = once[units[0]] | once[units[1]] | once[units[2]];
        const uint16_t found = single ? candidates(search, node, units, cell) & single : 0;
        if (found & (found - 1))
            return 0;
        if (found)
            place(node, units, cell, found);
        else
            node->empty[kept++] = (uint8_t)cell;
    }
    node->empties = kept;
    return kept == before ? 1 : 2;
}

/* Place singles, naked and hidden, until none is left. Returns 0 at a contradiction. */
static int propagate(const struct search *search, struct node *node)
{
    uint16_t once[3 * MOST_SIDE], twice[3 * MOST_SIDE];
    for (;;) {
        int state = naked_singles(search, node, once, twice);
        if (state == 1)
            state = hidden_singles(search, node, once, twice);
        if (state < 2)
            return state;
    }
}

/* The empty cell with the fewest candidates, the first of equals. Empty cells stay in ascending order. */
static uint32_t branch_cell(const struct search *search, const struct node *node, uint16_t *found)
{
    uint32_t best = 0, fewest = MOST_SIDE + 1;
    for (uint32_t index = 0; index < node->empties && fewest > 2; index++) {
        const uint32_t cell = node->empty[index];
        const uint16_t mask = candidates(search, node, search->shape->units[cell], cell);
        const uint32_t count = (uint32_t)__builtin_popcount(mask);
        if (count < fewest) {
            fewest = count;
            best = cell;
            *found = mask;
        }
    }
    return best;
}

static void solution_found(struct search *search, const struct node *node)
{
    if (!search->solutions++) {
        search->first_guesses = search->guesses;
        if (search->solution)
            memcpy(search->solution, node->grid, search->shape->cells);
    }
}

static void explore(struct search *search, struct node *node)
{
    if (!propagate(search, node))
        return;
    if (!node->empties) {
        solution_found(search, node);
        return;
    }
    uint16_t found = 0;
    const uint32_t cell = branch_cell(search, node, &found);
    for (uint32_t index = 0; index < node->empties; index++)
        if (node->empty[index] == cell) {
            memmove(node->empty + index, node->empty + index + 1, --node->empties - index);
            break;
        }
    uint8_t order[MOST_SIDE];
    if (search->random)
        shuffled(search->random, order, 0, search->shape->side);
    for (uint32_t index = 0; index < search->shape->side && search->solutions < search->most; index++) {
        const uint16_t digit = (uint16_t)(1u << (search->random ? order[index] : index));
        if (!(found & digit))
            continue;
        struct node child = *node;
        search->guesses++;
        place(&child, search->shape->units[cell], cell, digit);
        explore(search, &child);
    }
}

static struct search search_for(const struct geometry *shape, uint32_t most, uint64_t *random, uint8_t *solution)
{
    struct search search = {.shape = shape, .random = random, .most = most, .solution = solution};
    for (uint32_t cell = 0; cell < shape->cells; cell++)
        search.allowed[cell] = shape->all;
    return search;
}

/* Solve boards. solutions: 0, 1, or 2 for more than one; guesses: digits tried until the first solution. */
void sudoku_solve(uint32_t side, size_t rows, const uint8_t *boards, uint8_t *answers, int32_t *solutions, int32_t *guesses)
{
    const struct geometry shape = geometry_of(side);
    for (size_t row = 0; row < rows; row++) {
        struct search search = search_for(&shape, 2, NULL, answers + row * shape.cells);
        struct node node;
        if (start(&shape, &node, boards + row * shape.cells))
            explore(&search, &node);
        solutions[row] = (int32_t)search.solutions;
        guesses[row] = (int32_t)(search.solutions ? search.first_guesses : search.guesses);
    }
}

/* A symmetry: cell (i, j) of the new board is cell (rows[i], columns[j]) of the old one, transposed first or not, its digit renamed. */
struct symmetry {
    uint8_t rows[MOST_SIDE], columns[MOST_SIDE], digits[MOST_SIDE + 1], transposed;
};

static void lines_shuffled(uint64_t *random, uint8_t *lines, uint32_t side, uint32_t thickness)
{
    uint8_t bands[MOST_SIDE];
    shuffled(random, bands, 0, side / thickness);
    for (uint32_t band = 0; band < side / thickness; band++)
        shuffled(random, lines + band * thickness, bands[band] * thickness, thickness);
}

/* A random symmetry; `digits_only`: cells stay where they are. Boards transpose where boxes are square. */
static struct symmetry symmetry_of(const struct geometry *shape, uint64_t seed, int digits_only)
{
    struct symmetry symmetry = {.transposed = 0};
    shuffled(&seed, symmetry.digits + 1, 1, shape->side);
    memcpy(symmetry.rows, shape->first, shape->side);
    memcpy(symmetry.columns, shape->first, shape->side);
    if (!digits_only) {
        lines_shuffled(&seed, symmetry.rows, shape->side, shape->box_rows);
        lines_shuffled(&seed, symmetry.columns, shape->side, shape->box_columns);
        symmetry.transposed = shape->box_rows == shape->box_columns && below(&seed, 2);
    }
    return symmetry;
}

static void transform(const struct geometry *shape, const struct symmetry *symmetry, int inverse, const uint8_t *board, uint8_t *out)
{
    uint8_t old_of[MOST_SIDE + 1] = {0};
    for (uint32_t digit = 1; digit <= shape->side; digit++)
        old_of[symmetry->digits[digit]] = (uint8_t)digit;
    for (uint32_t i = 0, cell = 0; i < shape->side; i++)
        for (uint32_t j = 0; j < shape->side; j++, cell++) {
            const uint32_t row = symmetry->rows[i], column = symmetry->columns[j];
            const uint32_t other = symmetry->transposed ? column * shape->side + row : row * shape->side + column;
            if (inverse)
                out[other] = old_of[board[cell]];
            else
                out[cell] = symmetry->digits[board[other]];
        }
}

/* Apply to each board the symmetry of its seed, or undo it. */
void sudoku_transform(uint32_t side, size_t rows, const uint64_t *seeds, int32_t digits_only, int32_t inverse, const uint8_t *boards,
                      uint8_t *out)
{
    const struct geometry shape = geometry_of(side);
    for (size_t row = 0; row < rows; row++) {
        const struct symmetry symmetry = symmetry_of(&shape, seeds[row], digits_only);
        transform(&shape, &symmetry, inverse, boards + row * shape.cells, out + row * shape.cells);
    }
}

/* A random full board: the first that a search with digits in random order meets, under a random symmetry. */
static void full_board(const struct geometry *shape, uint64_t *random, uint8_t *board)
{
    uint8_t found[MOST_CELLS], blank[MOST_CELLS] = {0};
    struct search search = search_for(shape, 1, random, found);
    struct node node;
    start(shape, &node, blank);
    explore(&search, &node);
    const struct symmetry symmetry = symmetry_of(shape, next_word(random), 0);
    transform(shape, &symmetry, 0, found, board);
}

/* Whether blanking a clue leaves one solution: none has another digit there. */
static int is_redundant(struct search *search, uint8_t *board, uint32_t cell)
{
    const uint8_t digit = board[cell];
    struct node node;
    board[cell] = 0;
    start(search->shape, &node, board);
    search->allowed[cell] = (uint16_t)(search->shape->all & ~(1u << (digit - 1)));
    search->solutions = 0;
    explore(search, &node);
    search->allowed[cell] = search->shape->all;
    board[cell] = digit;
    return !search->solutions;
}

/* Generate minimal puzzles: clues of a random full board are removed in random order while one solution is left. */
void sudoku_generate(uint32_t side, size_t rows, const uint64_t *seeds, uint8_t *boards, uint8_t *answers)
{
    const struct geometry shape = geometry_of(side);
    for (size_t row = 0; row < rows; row++) {
        uint64_t random = seeds[row];
        uint8_t *board = boards + row * shape.cells, order[MOST_CELLS];
        full_board(&shape, &random, answers + row * shape.cells);
        memcpy(board, answers + row * shape.cells, shape.cells);
        shuffled(&random, order, 0, shape.cells);
        struct search search = search_for(&shape, 1, NULL, NULL);
        for (uint32_t index = 0; index < shape.cells; index++)
            if (is_redundant(&search, board, order[index]))
                board[order[index]] = 0;
    }
}

/* Sum the colours of the clues by row, column, box, band, stack and digit, and give each clue a new one from its own and its sums. Rows and
 * columns, and bands and stacks, are added up, so that a transposed board has the same colours. */
static void refine(const struct geometry *shape, const uint8_t *board, uint64_t *colours, int digits_only)
{
    uint64_t units[3 * MOST_SIDE] = {0}, bands[2 * MOST_SIDE] = {0}, digits[MOST_SIDE + 1] = {0};
    for (uint32_t cell = 0; cell < shape->cells; cell++) {
        const uint8_t *unit = shape->units[cell];
        for (int kind = 0; kind < 3; kind++)
            units[unit[kind]] += colours[cell];
        bands[unit[0] / shape->box_rows] += colours[cell];
        bands[MOST_SIDE + (unit[1] - shape->side) / shape->box_columns] += colours[cell];
        digits[board[cell]] += colours[cell];
    }
    for (uint32_t cell = 0; cell < shape->cells; cell++) {
        const uint8_t *unit = shape->units[cell];
        const uint64_t lines = scramble(units[unit[0]] + 1) + scramble(units[unit[1]] + 1);
        const uint64_t band = bands[unit[0] / shape->box_rows];
        const uint64_t stack = bands[MOST_SIDE + (unit[1] - shape->side) / shape->box_columns];
        const uint64_t wide = scramble(band + 2) + scramble(stack + 2);
        const uint64_t around = digits_only ? 0 : lines + scramble(units[unit[2]] + 3) + wide;
        colours[cell] = board[cell] ? scramble(colours[cell] * 3 + around + scramble(digits[board[cell]] + 4)) : 0;
    }
}

/* Hash boards such that equivalent ones are equal: colour refinement of the clues. `digits_only`: only renamed digits are equivalent. */
void sudoku_hash(uint32_t side, size_t rows, int32_t digits_only, const uint8_t *boards, uint64_t *hashes)
{
    const struct geometry shape = geometry_of(side);
    for (size_t row = 0; row < rows; row++) {
        const uint8_t *board = boards + row * shape.cells;
        uint64_t colours[MOST_CELLS], sum = 0;
        for (uint32_t cell = 0; cell < shape.cells; cell++)
            colours[cell] = board[cell] ? scramble(digits_only ? cell + 1 : 1) : 0;
        for (int round = 0; round < 4; round++)
            refine(&shape, board, colours, digits_only);
        for (uint32_t cell = 0; cell < shape.cells; cell++)
            sum += scramble(colours[cell]);
        hashes[row] = sum;
    }
}
