/* Mazes on a square grid: generate, solve, check answers, and hash up to the symmetries of the square.
 *
 * Called through ctypes from maze.py. A board is `side * side` bytes in row-major order, the tokens below; boards of a call are contiguous.
 * Inside, a grid has a border of walls, so that every cell has four neighbours.
 */
#include <string.h>

#include "random.h"

enum { WALL = 1, OPEN, START, GOAL, MARKED };
enum { MOST_SIDE = 128, STRIDE = MOST_SIDE + 2, PADDED = STRIDE * STRIDE, MOST_ROOMS = MOST_SIDE * MOST_SIDE / 4 };
enum { FAR = 65535 };

struct grid {
    uint32_t side;
    uint8_t open[PADDED];
    uint16_t distance[PADDED];   /* moves from where `flood` started, FAR where that cannot be reached */
    uint16_t queue[PADDED];      /* the cells that it reached, nearest first */
};

static const int STEPS[4] = {-STRIDE, STRIDE, -1, 1};   /* up, down, left, right */

static inline uint32_t padded(uint32_t row, uint32_t column)
{
    return (row + 1) * STRIDE + column + 1;
}

/* Measure distances from a cell; return how many cells can be reached, itself included. */
static uint32_t flood(struct grid *grid, uint32_t from)
{
    uint32_t reached = 1;
    memset(grid->distance, 0xFF, sizeof(uint16_t) * STRIDE * (grid->side + 2));
    grid->distance[from] = 0;
    grid->queue[0] = (uint16_t)from;
    for (uint32_t index = 0; index < reached; index++) {
        const uint32_t cell = grid->queue[index];
        for (int step = 0; step < 4; step++) {
            const uint32_t next = cell + STEPS[step];
            if (grid->open[next] && grid->distance[next] == FAR) {
                grid->distance[next] = grid->distance[cell] + 1;
                grid->queue[reached++] = (uint16_t)next;
            }
        }
    }
    return reached;
}

static void write_board(const struct grid *grid, uint8_t *board)
{
    for (uint32_t row = 0; row < grid->side; row++)
        for (uint32_t column = 0; column < grid->side; column++)
            *board++ = grid->open[padded(row, column)] ? OPEN : WALL;
}

static void read_board(struct grid *grid, const uint8_t *board, uint32_t *start, uint32_t *goal)
{
    memset(grid->open, 0, sizeof grid->open);
    *start = *goal = 0;
    for (uint32_t row = 0; row < grid->side; row++)
        for (uint32_t column = 0; column < grid->side; column++, board++) {
            grid->open[padded(row, column)] = *board != WALL;
            if (*board == START)
                *start = padded(row, column);
            if (*board == GOAL)
                *goal = padded(row, column);
        }
}

static inline uint32_t on_board(uint32_t side, uint32_t cell)
{
    return (cell / STRIDE - 1) * side + cell % STRIDE - 1;
}

/* Mark the shortest path to the goal: of several, the one traced from the goal by the first of up, down, left, right that is nearer. */
static void mark_path(const struct grid *grid, uint32_t goal, uint8_t *answer)
{
    for (uint32_t cell = goal; grid->distance[cell] > 1;) {
        int step = 0;
        while (grid->distance[cell + STEPS[step]] != grid->distance[cell] - 1)
            step++;
        cell += STEPS[step];
        answer[on_board(grid->side, cell)] = MARKED;
    }
}

/* Carve a perfect maze by the recursive backtracker: the parent of every room, and how many rooms it is from the first. */
static void carve(uint64_t *random, uint32_t rooms, uint16_t *parent, uint16_t *depth)
{
    uint16_t stack[MOST_ROOMS];
    uint32_t height = 1;
    memset(depth, 0xFF, sizeof(uint16_t) * rooms * rooms);
    stack[0] = (uint16_t)below(random, rooms * rooms);
    depth[stack[0]] = 0;
    parent[stack[0]] = stack[0];
    while (height) {
        const uint32_t room = stack[height - 1], row = room / rooms, column = room % rooms;
        uint32_t free[4], count = 0;
        if (row > 0 && depth[room - rooms] == FAR)
            free[count++] = room - rooms;
        if (row + 1 < rooms && depth[room + rooms] == FAR)
            free[count++] = room + rooms;
        if (column > 0 && depth[room - 1] == FAR)
            free[count++] = room - 1;
        if (column + 1 < rooms && depth[room + 1] == FAR)
            free[count++] = room + 1;
        if (!count) {
            height--;
            continue;
        }
        const uint32_t next = free[count > 1 ? below(random, count) : 0];
        parent[next] = (uint16_t)room;
        depth[next] = depth[room] + 1;
        stack[height++] = (uint16_t)next;
    }
}

/* The rooms between two rooms of the tree, and two more for the ends. */
static uint32_t tree_distance(const uint16_t *parent, const uint16_t *depth, uint32_t one, uint32_t other)
{
    uint32_t moves = 0;
    for (; one != other; moves++)
        if (depth[one] > depth[other])
            one = parent[one];
        else
            other = parent[other];
    return moves;
}

/* The cell of a room, and the cell between a room and its parent. */
static inline uint32_t room_cell(uint32_t side, uint32_t rooms, uint32_t room)
{
    return room / rooms * 2 * side + room % rooms * 2;
}

static inline uint32_t door_cell(uint32_t side, uint32_t rooms, uint32_t room, uint32_t parent)
{
    return (room_cell(side, rooms, room) + room_cell(side, rooms, parent)) / 2;
}

static void write_tree(uint32_t side, uint32_t rooms, const uint16_t *parent, uint8_t *board)
{
    memset(board, WALL, side * side);
    for (uint32_t room = 0; room < rooms * rooms; room++) {
        board[room_cell(side, rooms, room)] = OPEN;
        board[door_cell(side, rooms, room, parent[room])] = OPEN;
    }
}

static void mark_tree_path(uint32_t side, uint32_t rooms, const uint16_t *parent, const uint16_t *depth, uint32_t one, uint32_t other,
                           uint8_t *answer)
{
    while (one != other) {
        uint32_t *lower = depth[one] > depth[other] ? &one : &other;
        answer[room_cell(side, rooms, *lower)] = MARKED;
        answer[door_cell(side, rooms, *lower, parent[*lower])] = MARKED;
        *lower = parent[*lower];
    }
    answer[room_cell(side, rooms, one)] = MARKED;
}

/* Generate perfect mazes: rooms at even coordinates, a spanning tree of passages, a random start and goal at least `least` moves apart.
 * moves: 0 where `tries` mazes have none. */
void maze_perfect(uint32_t side, size_t rows, const uint64_t *seeds, uint32_t least, uint32_t tries, uint8_t *boards, uint8_t *answers,
                  int32_t *moves)
{
    const uint32_t rooms = (side + 1) / 2, cells = side * side;
    uint16_t parent[MOST_ROOMS], depth[MOST_ROOMS];
    for (size_t row = 0; row < rows; row++) {
        uint64_t random = seeds[row];
        uint8_t *board = boards + row * cells, *answer = answers + row * cells;
        moves[row] = 0;
        for (uint32_t attempt = 0; attempt < tries && !moves[row]; attempt++) {
            carve(&random, rooms, parent, depth);
            const uint32_t start = below(&random, rooms * rooms), goal = below(&random, rooms * rooms);
            const uint32_t length = 2 * tree_distance(parent, depth, start, goal);
            if (!length || length < least)
                continue;
            moves[row] = (int32_t)length;
            write_tree(side, rooms, parent, board);
            memcpy(answer, board, cells);
            mark_tree_path(side, rooms, parent, depth, start, goal, answer);
            board[room_cell(side, rooms, start)] = answer[room_cell(side, rooms, start)] = START;
            board[room_cell(side, rooms, goal)] = answer[room_cell(side, rooms, goal)] = GOAL;
        }
    }
}

/* Walls at random, each cell with the probability threshold / 2^16; returns how many cells are open. */
static uint32_t scatter(struct grid *grid, uint64_t *random, uint32_t threshold)
{
    uint64_t word = 0;
    uint32_t open = 0;
    for (uint32_t row = 0; row < grid->side; row++)
        for (uint32_t column = 0; column < grid->side; column++, word >>= 16) {
            if (column % 4 == 0)
                word = next_word(random);
            open += grid->open[padded(row, column)] = (word & 0xFFFF) >= threshold;
        }
    return open;
}

static uint32_t open_cell(const struct grid *grid, uint64_t *random)
{
    for (;;) {
        const uint32_t cell = padded(below(random, grid->side), below(random, grid->side));
        if (grid->open[cell])
            return cell;
    }
}

/* A start from which some cell is at least `least` moves away: a random cell, else the cell farthest from it. Returns the cells reached, 0
 * where there is none. */
static uint32_t find_start(struct grid *grid, uint64_t *random, uint32_t least)
{
    uint32_t reached = flood(grid, open_cell(grid, random));
    uint32_t last = grid->queue[reached - 1], farthest = grid->distance[last];
    if (farthest < least && 2 * farthest >= least) {
        reached = flood(grid, last);
        farthest = grid->distance[grid->queue[reached - 1]];
    }
    return farthest >= least ? reached : 0;
}

/* Write a board with its start and, if `ask_path`, goal, and its answer; return the shortest path's moves, or the cells that are reached. */
static int32_t finish(const struct grid *grid, uint64_t *random, uint32_t reached, uint32_t least, int ask_path, uint8_t *board,
                      uint8_t *answer)
{
    const uint32_t start = on_board(grid->side, grid->queue[0]);
    write_board(grid, board);
    memcpy(answer, board, grid->side * grid->side);
    board[start] = answer[start] = START;
    if (!ask_path) {
        for (uint32_t index = 1; index < reached; index++)
            answer[on_board(grid->side, grid->queue[index])] = MARKED;
        return (int32_t)reached - 1;
    }
    uint32_t near = 0;
    while (grid->distance[grid->queue[near]] < least)
        near++;
    const uint32_t goal = grid->queue[near + below(random, reached - near)], place = on_board(grid->side, goal);
    mark_path(grid, goal, answer);
    board[place] = answer[place] = GOAL;
    return grid->distance[goal];
}

/* Generate mazes of random walls, of 30 to 50 % of the cells, with a start and a goal at least `least` moves apart; without `ask_path`, of
 * 38 %, with a start and some cell that far away. moves: 0 where `tries` mazes have none. */
void maze_percolation(uint32_t side, size_t rows, const uint64_t *seeds, uint32_t least, uint32_t tries, int32_t ask_path, uint8_t *boards,
                      uint8_t *answers, int32_t *moves)
{
    struct grid grid = {.side = side};
    const uint32_t cells = side * side;
    for (size_t row = 0; row < rows; row++) {
        uint64_t random = seeds[row];
        moves[row] = 0;
        for (uint32_t attempt = 0; attempt < tries && !moves[row]; attempt++) {
            const uint32_t threshold = ask_path ? 65536 * 3 / 10 + below(&random, 65536 / 5) : 65536 * 38 / 100;
            const uint32_t reached = scatter(&grid, &random, threshold) > 1 ? find_start(&grid, &random, least) : 0;
            if (reached > 1)
                moves[row] = finish(&grid, &random, reached, least, ask_path, boards + row * cells, answers + row * cells);
        }
    }
}

/* Answer boards. moves: those of the shortest path, or the cells that are reached; -1 where there is no path. */
void maze_solve(uint32_t side, size_t rows, int32_t ask_path, const uint8_t *boards, uint8_t *answers, int32_t *moves)
{
    struct grid grid = {.side = side};
    const uint32_t cells = side * side;
    for (size_t row = 0; row < rows; row++) {
        uint8_t *answer = answers + row * cells;
        uint32_t start, goal;
        read_board(&grid, boards + row * cells, &start, &goal);
        memcpy(answer, boards + row * cells, cells);
        const uint32_t reached = flood(&grid, start);
        moves[row] = ask_path ? (grid.distance[goal] == FAR ? -1 : grid.distance[goal]) : (int32_t)reached - 1;
        if (ask_path && moves[row] > 0)
            mark_path(&grid, goal, answer);
        for (uint32_t index = 1; !ask_path && index < reached; index++)
            answer[on_board(side, grid.queue[index])] = MARKED;
    }
}

/* Whether each answer keeps the board and marks a path from start to goal of as many moves as given, the fewest. */
void maze_check(uint32_t side, size_t rows, const uint8_t *boards, const uint8_t *answers, const int32_t *moves, uint8_t *valid)
{
    struct grid grid = {.side = side};
    const uint32_t cells = side * side;
    for (size_t row = 0; row < rows; row++) {
        const uint8_t *board = boards + row * cells, *answer = answers + row * cells;
        uint32_t start, goal;
        int32_t marked = 0;
        read_board(&grid, board, &start, &goal);
        valid[row] = moves[row] > 0;
        for (uint32_t cell = 0; cell < cells; cell++) {
            const int is_marked = board[cell] == OPEN && answer[cell] == MARKED;
            marked += is_marked;
            valid[row] &= is_marked || board[cell] == answer[cell];
            grid.open[padded(cell / side, cell % side)] = is_marked || board[cell] == START || board[cell] == GOAL;
        }
        if (!valid[row])
            continue;
        flood(&grid, start);
        valid[row] = marked == moves[row] - 1 && grid.distance[goal] != FAR;
    }
}

/* Hash the lines of a board: rows and columns, each read forwards and backwards. */
static void hash_lines(uint32_t side, const uint8_t *board, uint64_t lines[4][MOST_SIDE], const uint64_t *weights)
{
    memset(lines, 0, sizeof(uint64_t) * 4 * MOST_SIDE);
    for (uint32_t row = 0; row < side; row++) {
        const uint64_t down = weights[row], up = weights[side - 1 - row];
        for (uint32_t column = 0; column < side; column++) {
            const uint64_t token = *board++;
            lines[0][row] += token * weights[column];
            lines[1][row] += token * weights[side - 1 - column];
            lines[2][column] += token * down;
            lines[3][column] += token * up;
        }
    }
}

/* Hash boards such that those which the 8 symmetries of the square turn into each other are equal: the smallest of 8 hashes. */
void maze_hash(uint32_t side, size_t rows, const uint8_t *boards, uint64_t *hashes)
{
    uint64_t weights[MOST_SIDE], lines[4][MOST_SIDE];
    for (uint32_t place = 0; place < side; place++)
        weights[place] = scramble(place + 1) | 1;
    for (size_t row = 0; row < rows; row++) {
        hash_lines(side, boards + row * side * side, lines, weights);
        uint64_t smallest = UINT64_MAX;
        for (int way = 0; way < 4; way++) {
            uint64_t forwards = 0, backwards = 0;
            for (uint32_t place = 0; place < side; place++) {
                forwards += scramble(lines[way][place]) * weights[place];
                backwards += scramble(lines[way][place]) * weights[side - 1 - place];
            }
            smallest = forwards < smallest ? forwards : smallest;
            smallest = backwards < smallest ? backwards : smallest;
        }
        hashes[row] = smallest;
    }
}
