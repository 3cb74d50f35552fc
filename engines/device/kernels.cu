// The whole path of a volume on the GPU: `engines.inference.preprocessing`, `sliding_window` and `postprocessing` once more.
//
// Arrays are [slice, row, column], rows of columns one after the other; one thread does one voxel. There is no shared
// memory and no order between threads that any result depends on. `scripts/make_ptx.sh` compiles this file without
// fused multiply-add, so that a float is the very same on every GPU, and on a CPU (tests/cuda_on_cpu.cpp).
//
// `engines/device/kernels.py` holds each kernel's parameters in the notation of Python's `struct`; keep them equal.

struct Shape {
    int slices, rows, columns;
};

struct Index {
    int slice, row, column;
};

// From an index (slice, row, column, 1) to another: three rows of four.
struct Matrix {
    double m[12];
};

__device__ inline long long thread() {
    return blockIdx.x * (long long)blockDim.x + threadIdx.x;
}

__device__ inline long long voxels(Shape shape) {
    return (long long)shape.slices * shape.rows * shape.columns;
}

__device__ inline Index index_of(long long voxel, Shape shape) {
    long long line = voxel / shape.columns;
    return {(int)(line / shape.rows), (int)(line % shape.rows), (int)(voxel % shape.columns)};
}

__device__ inline long long offset(Index at, Shape shape) {
    return ((long long)at.slice * shape.rows + at.row) * shape.columns + at.column;
}

__device__ inline bool inside(Index at, Shape shape) {
    return at.slice >= 0 && at.slice < shape.slices && at.row >= 0 && at.row < shape.rows && at.column >= 0 &&
           at.column < shape.columns;
}

// ---- reading a volume --------------------------------------------------------------------------------------------

__device__ inline void store(float *to, double value) {
    *to = (float)value;
}

// As SimpleITK's BinShrink rounds: half up.
__device__ inline void store(short *to, double value) {
    *to = (short)floor(value + 0.5);
}

__device__ inline float rounded(float value, const float *) {
    return value;
}

__device__ inline float rounded(float value, const short *) {
    return rintf(value);
}

// A voxel of the evenly spaced volume. `places` says between which stored slices each of its slices lies; null where
// the volume is evenly spaced as it is.
template <typename T>
__device__ float evenly_spaced(const T *source, const double *places, Shape stored, Index at) {
    if (!places)
        return source[offset(at, stored)];
    double place = places[at.slice];
    int before = (int)place, after = min(before + 1, stored.slices - 1);
    double share = place - before;
    float low = source[offset({before, at.row, at.column}, stored)];
    float high = source[offset({after, at.row, at.column}, stored)];
    return rounded(low * (float)(1 - share) + high * (float)share, source);
}

// The mean of blocks of the evenly spaced volume; the edge repeated fills the last ones.
template <typename T>
__device__ void average(const T *source, const double *places, T *averaged, Shape stored, int steps, Shape block,
                        Shape shape) {
    long long voxel = thread();
    if (voxel >= voxels(shape))
        return;
    Index at = index_of(voxel, shape);
    double sum = 0;
    for (int slice = 0; slice < block.slices; ++slice)
        for (int row = 0; row < block.rows; ++row)
            for (int column = 0; column < block.columns; ++column)
                sum += evenly_spaced(source, places, stored,
                                     {min(at.slice * block.slices + slice, steps - 1),
                                      min(at.row * block.rows + row, stored.rows - 1),
                                      min(at.column * block.columns + column, stored.columns - 1)});
    store(averaged + voxel, sum * (1.0 / voxels(block)));
}

// Floats as integers of the same order, for atomicMin.
__device__ inline int ordered(float value) {
    int bits = __float_as_int(value);
    return bits >= 0 ? bits : bits ^ 0x7fffffff;
}

__device__ inline float unordered(int key) {
    return __int_as_float(key >= 0 ? key : key ^ 0x7fffffff);
}

// The lowest value of the evenly spaced volume. Few threads, each of which reads many voxels: one atomic a thread.
template <typename T>
__device__ void lowest(const T *source, const double *places, int *lowest_key, Shape stored, int steps) {
    Shape even = {steps, stored.rows, stored.columns};
    int key = 0x7fffffff;
    for (long long voxel = thread(); voxel < voxels(even); voxel += (long long)gridDim.x * blockDim.x)
        key = min(key, ordered(evenly_spaced(source, places, stored, index_of(voxel, even))));
    atomicMin(lowest_key, key);
}

// ---- linear interpolation ----------------------------------------------------------------------------------------

// Where to interpolate: the first of eight neighbours, how far the next one is along each axis (0 at the border), and
// the share of the next one.
struct Place {
    long long first, slice, row, column;
    float slice_share, row_share, column_share;
};

__device__ inline void along(double at, int length, long long stride, long long &first, long long &next, float &share) {
    at = fmin(fmax(at, 0.0), length - 1.0);
    int before = (int)at;
    first += before * stride;
    next = before + 1 < length ? stride : 0;
    share = (float)(at - before);
}

// False outside of the image. Like SimpleITK's linear interpolator: a voxel reaches half a voxel beyond its centre, the
// upper end excluded, and from the outermost centres on the image is constant.
__device__ inline bool locate(const Matrix &matrix, double slice, double row, double column, Shape shape, Place &place) {
    const double *m = matrix.m;
    double s = m[0] * slice + m[1] * row + m[2] * column + m[3];
    double r = m[4] * slice + m[5] * row + m[6] * column + m[7];
    double c = m[8] * slice + m[9] * row + m[10] * column + m[11];
    if (!(s >= -0.5 && s < shape.slices - 0.5 && r >= -0.5 && r < shape.rows - 0.5 && c >= -0.5 &&
          c < shape.columns - 0.5))
        return false;
    place.first = 0;
    along(s, shape.slices, (long long)shape.rows * shape.columns, place.first, place.slice, place.slice_share);
    along(r, shape.rows, shape.columns, place.first, place.row, place.row_share);
    along(c, shape.columns, 1, place.first, place.column, place.column_share);
    return true;
}

__device__ inline float between(float low, float high, float share) {
    return low + (high - low) * share;
}

template <typename T> __device__ float interpolate(const T *array, const Place &at) {
    const T *first = array + at.first;
    float lines[4];
    for (int line = 0; line < 4; ++line) {
        const T *start = first + (line & 2 ? at.slice : 0) + (line & 1 ? at.row : 0);
        lines[line] = between(start[0], start[at.column], at.column_share);
    }
    return between(between(lines[0], lines[1], at.row_share), between(lines[2], lines[3], at.row_share), at.slice_share);
}

// The (averaged) volume on the network's grid, clipped to the window; outside of the volume its lowest value.
template <typename T>
__device__ void resample(const T *source, const int *lowest_key, float *values, const Matrix &to_source, Shape stored,
                         Shape grid, float low, float high) {
    long long voxel = thread();
    if (voxel >= voxels(grid))
        return;
    Index at = index_of(voxel, grid);
    Place place;
    bool found = locate(to_source, at.slice, at.row, at.column, stored, place);
    float value = found ? interpolate(source, place) : unordered(*lowest_key);
    values[voxel] = fminf(fmaxf(value, low), high);
}

// A kernel has one name, without templates: one for each type that a volume may have.
#define FOR_VOLUMES_OF(T, name)                                                                                        \
    extern "C" __global__ void average_##name(const T *source, const double *places, T *averaged, Shape stored,       \
                                              int steps, Shape block, Shape shape) {                                  \
        average(source, places, averaged, stored, steps, block, shape);                                               \
    }                                                                                                                  \
    extern "C" __global__ void lowest_##name(const T *source, const double *places, int *lowest_key, Shape stored,    \
                                             int steps) {                                                             \
        lowest(source, places, lowest_key, stored, steps);                                                            \
    }                                                                                                                  \
    extern "C" __global__ void resample_##name(const T *source, const int *lowest_key, float *values,                 \
                                               Matrix to_source, Shape stored, Shape grid, float low, float high) {   \
        resample(source, lowest_key, values, to_source, stored, grid, low, high);                                     \
    }

FOR_VOLUMES_OF(short, int16)
FOR_VOLUMES_OF(float, float32)

// ---- patches -----------------------------------------------------------------------------------------------------

// Bit 0 of `flips` mirrors the slices, bit 1 the rows, bit 2 the columns.
__device__ inline Index mirrored(Index at, Shape patch, int flips) {
    return {flips & 1 ? patch.slices - 1 - at.slice : at.slice, flips & 2 ? patch.rows - 1 - at.row : at.row,
            flips & 4 ? patch.columns - 1 - at.column : at.column};
}

__device__ inline Index shifted(Index at, Index by) {
    return {at.slice + by.slice, at.row + by.row, at.column + by.column};
}

// One patch into the network's input, scaled and mirrored; 0 where it reaches over the grid's edge.
extern "C" __global__ void cut_patch(const float *values, float *input, Shape grid, Shape patch, Index start, int flips,
                                     float minus, float over, float times, float plus) {
    long long voxel = thread();
    if (voxel >= voxels(patch))
        return;
    Index at = shifted(mirrored(index_of(voxel, patch), patch, flips), start);
    input[voxel] = inside(at, grid) ? (values[offset(at, grid)] - minus) / over * times + plus : 0.0f;
}

// The network's answer for one patch, mirrored back and weighted, onto the grid. Patches come one after the other, and
// each voxel of the grid is one thread's: no atomics, and sums in the same order each time.
extern "C" __global__ void add_patch(const float *answer, const float *profiles, float *sums, float *weights, Shape grid,
                                     Shape patch, Index start, int flips, int classes, float least_weight) {
    long long voxel = thread(), size = voxels(patch), all = voxels(grid);
    if (voxel >= size)
        return;
    Index within = index_of(voxel, patch), at = shifted(within, start);
    if (!inside(at, grid))
        return;
    const float *rows = profiles + patch.slices, *columns = rows + patch.rows;
    float weight = fmaxf(profiles[within.slice] * rows[within.row] * columns[within.column], least_weight);
    const float *from = answer + offset(mirrored(within, patch, flips), patch);
    float *to = sums + offset(at, grid);
    for (int number = 0; number < classes; ++number)
        to[number * all] += from[number * size] * weight;
    weights[offset(at, grid)] += weight;
}

// Sums become probabilities; of each voxel the most probable class. `broken` is set where one is no number.
extern "C" __global__ void normalise(float *sums, const float *weights, unsigned char *labels, int *broken, Shape grid,
                                     int classes) {
    long long voxel = thread(), all = voxels(grid);
    if (voxel >= all)
        return;
    float best = -1.0f;
    int label = 0;
    bool finite = true;
    for (int number = 0; number < classes; ++number) {
        float probability = sums[number * all + voxel] / weights[voxel];
        sums[number * all + voxel] = probability;
        finite = finite && isfinite(probability);
        if (probability > best) {
            best = probability;
            label = number;
        }
    }
    labels[voxel] = (unsigned char)label;
    if (!finite)
        atomicOr(broken, 1);
}

// ---- connected components ----------------------------------------------------------------------------------------
//
// Union-find on the grid: of each component the root is its first voxel. `unite` is the scheme of Komura (Computer
// Physics Communications 2015) as corrected by Playne and Hawick (IEEE TPDS 2018) and given by Allegretti, Bolelli and
// Grana (IEEE TPDS 2019): a link is set by atomicMin, which only ever lowers a parent, so there are no cycles; whoever
// finds that it was no root that was linked any more goes on with what the root had been linked to meanwhile, so that no
// union is lost, in whatever order threads run. A stale parent read by `root_of` is a former one, of the same component.

__device__ inline unsigned root_of(const volatile unsigned *parents, unsigned voxel) {
    for (unsigned parent = parents[voxel]; parent != voxel; parent = parents[voxel])
        voxel = parent;
    return voxel;
}

__device__ inline void unite(unsigned *parents, unsigned one, unsigned other) {
    while (true) {
        one = root_of(parents, one);
        other = root_of(parents, other);
        if (one == other)
            return;
        unsigned low = min(one, other), high = max(one, other);
        unsigned before = atomicMin(parents + high, low);
        if (before == high)
            return;
        one = low;
        other = before;
    }
}

extern "C" __global__ void begin_components(unsigned *parents, unsigned *sizes, Shape grid) {
    long long voxel = thread();
    if (voxel >= voxels(grid))
        return;
    parents[voxel] = (unsigned)voxel;
    sizes[voxel] = 0;
}

// Voxels that touch by a face and have the same label are of one component.
extern "C" __global__ void join_components(const unsigned char *labels, unsigned *parents, Shape grid) {
    long long voxel = thread();
    if (voxel >= voxels(grid) || !labels[voxel])
        return;
    Index at = index_of(voxel, grid);
    long long plane = (long long)grid.rows * grid.columns;
    if (at.column > 0 && labels[voxel - 1] == labels[voxel])
        unite(parents, (unsigned)voxel, (unsigned)(voxel - 1));
    if (at.row > 0 && labels[voxel - grid.columns] == labels[voxel])
        unite(parents, (unsigned)voxel, (unsigned)(voxel - grid.columns));
    if (at.slice > 0 && labels[voxel - plane] == labels[voxel])
        unite(parents, (unsigned)voxel, (unsigned)(voxel - plane));
}

// Every parent becomes the root (any thread that still walks over it gets there sooner), and roots are counted.
extern "C" __global__ void count_components(const unsigned char *labels, unsigned *parents, unsigned *sizes, Shape grid) {
    long long voxel = thread();
    if (voxel >= voxels(grid) || !labels[voxel])
        return;
    unsigned root = root_of(parents, (unsigned)voxel);
    *(volatile unsigned *)(parents + voxel) = root;
    atomicAdd(sizes + root, 1u);
}

// Of each label the largest component: its size in the upper half; of equals the one that comes first.
extern "C" __global__ void find_largest(const unsigned char *labels, const unsigned *parents, const unsigned *sizes,
                                        unsigned long long *largest, Shape grid) {
    long long voxel = thread();
    if (voxel >= voxels(grid) || !labels[voxel] || parents[voxel] != (unsigned)voxel)
        return;
    atomicMax(largest + labels[voxel], ((unsigned long long)sizes[voxel] << 32) | (0xffffffffu - (unsigned)voxel));
}

// What is in no largest component becomes background.
extern "C" __global__ void drop_components(const unsigned char *labels, const unsigned *parents,
                                           const unsigned long long *largest, float *probabilities, Shape grid,
                                           int classes) {
    long long voxel = thread(), all = voxels(grid);
    if (voxel >= all || !labels[voxel] || parents[voxel] == 0xffffffffu - (unsigned)largest[labels[voxel]])
        return;
    for (int number = 0; number < classes; ++number)
        probabilities[number * all + voxel] = number ? 0.0f : 1.0f;
}

// ---- back to the source ------------------------------------------------------------------------------------------

// The most probable class at `count` voxels of the source, from the voxel `from` on. Background is what the others leave
// of 1, so all of it outside of the grid. `at` says where slices lie that are not one step apart; null where they are.
extern "C" __global__ void label_source(const float *probabilities, const double *at, unsigned char *labels,
                                        Matrix to_grid, long long from, long long count, Shape source, Shape grid,
                                        int classes) {
    long long voxel = thread(), all = voxels(grid);
    if (voxel >= count)
        return;
    Index index = index_of(from + voxel, source);
    Place place;
    float best = 0.0f, background = 1.0f;
    int label = 0;
    if (locate(to_grid, at ? at[index.slice] : index.slice, index.row, index.column, grid, place))
        for (int number = 1; number < classes; ++number) {
            float probability = interpolate(probabilities + number * all, place);
            background -= probability;
            if (probability > best) {
                best = probability;
                label = number;
            }
        }
    labels[voxel] = background >= best ? 0 : (unsigned char)label;
}
