// One pass over a tensor's memory: everything that a run keeps of it.
//
// A row of moments is eight doubles: count, mean, M2 = Σ(x − mean)², lowest, highest, zeros, non-finite elements, and one
// that belongs to the caller. Mean, M2 and the extremes are over the finite elements, and NaN without any. A count of
// NaN says that nothing has been measured yet, zeros of NaN that there were no data, only a count.
//
// Elements are read in blocks, shifted by the block's first element K: with d = x − K,
//   mean = K + Σd/n        M2 = Σd² − (Σd)²/n
// so that a large mean costs no digits: what cancels within a block is at most its own spread. Blocks and rows are joined
// in double, by the pairwise formula of Chan, Golub and LeVeque (1979). Within a block the sums of an exact row run in
// double, too; those of a quick row of floats in float, side by side in 16 to 32 lanes, so that a few roundings meet in
// each: about 1e−7 of the spread, which is what a run keeps. Where squares leave float's range, or K is an outlier, double
// steps in.

#include <cmath>
#include <cstdint>
#include <cstring>

#define INLINE inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))

namespace {

constexpr int64_t BLOCK = 2048;
constexpr double SMALLEST_SQUARE = 1e-30;  // mean square from which on floats can hold all the squares that matter
constexpr double SMALLEST_SHARE = 1.0 / 64;  // of Σd² that M2 has to be: below, too many of float's digits cancel
constexpr int CHAINS = 2;  // sums side by side: an addition takes longer than the processor needs to begin the next one

template <typename T, int LANES> struct Lanes {
    typedef T type __attribute__((vector_size(sizeof(T) * LANES), aligned(sizeof(T)), may_alias));
};
template <typename T, int LANES> using Vector = typename Lanes<T, LANES>::type;

enum { COUNT, MEAN, M2, LOW, HIGH, ZEROS, BAD, OWN, WIDTH };

// Each kind of element: how it is stored, what it is widened to, and the integer of that size.
template <typename Stored_, typename Wide_, typename Mask_> struct Plain {
    using Stored = Stored_;
    using Wide = Wide_;
    using Mask = Mask_;
    static INLINE Wide one(Stored x) { return static_cast<Wide>(x); }
    template <int LANES> static INLINE Vector<Wide, LANES> many(Vector<Stored, LANES> x) {
        return __builtin_convertvector(x, Vector<Wide, LANES>);
    }
};
using Float = Plain<float, float, int32_t>;
using Double = Plain<double, double, int64_t>;
template <typename Stored> using Integer = Plain<Stored, double, int64_t>;

// Two-byte floats go through the bits of a float. A half's exponent has another bias, which 2^112 mends, subnormals
// included; the exponent of Inf and NaN is filled by hand.
template <bool HALF> struct Narrow : Plain<uint16_t, float, int32_t> {
    template <typename Float, typename Bits> static INLINE Bits widened(Bits x) {
        if (!HALF)
            return x << 16;
        const Bits magnitude = (x & 0x7fff) << 13, special = (Bits)(magnitude >= (0x7c00u << 13)) & 1;
        Float scaled;
        std::memcpy(&scaled, &magnitude, sizeof scaled);
        scaled *= 0x1p112f;
        Bits bits;
        std::memcpy(&bits, &scaled, sizeof bits);
        return bits | special * 0x7f800000u | (x & 0x8000) << 16;
    }
    static INLINE float one(uint16_t x) {
        const uint32_t bits = widened<float>(static_cast<uint32_t>(x));
        float number;
        std::memcpy(&number, &bits, sizeof number);
        return number;
    }
    template <int LANES> static INLINE Vector<float, LANES> many(Vector<uint16_t, LANES> x) {
        using Wide = Vector<float, LANES>;
        return (Wide)widened<Wide>(__builtin_convertvector(x, Vector<uint32_t, LANES>));
    }
};

INLINE void join_rows(double *into, const double *other) {
    if (std::isnan(other[ZEROS]) && !std::isnan(into[COUNT]))
        return;
    if (!(into[COUNT] > 0 && into[ZEROS] >= 0)) {
        const double own = into[OWN];
        std::memcpy(into, other, WIDTH * sizeof(double));
        into[OWN] = own;
        return;
    }
    const double a = into[COUNT] - into[BAD], b = other[COUNT] - other[BAD];
    if (b > 0) {
        const double delta = other[MEAN] - into[MEAN];
        into[M2] = a > 0 ? into[M2] + other[M2] + delta * delta * (a * b / (a + b)) : other[M2];
        into[MEAN] = a > 0 ? into[MEAN] + delta * (b / (a + b)) : other[MEAN];
        into[LOW] = a > 0 && into[LOW] < other[LOW] ? into[LOW] : other[LOW];
        into[HIGH] = a > 0 && into[HIGH] > other[HIGH] ? into[HIGH] : other[HIGH];
    }
    into[COUNT] += other[COUNT];
    into[ZEROS] += other[ZEROS];
    into[BAD] += other[BAD];
}

// Calls `work` with the type that tells of elements of a kind; the numbers are those of kernel.py.
template <typename Work> INLINE void with_kind(int32_t kind, Work work) {
    switch (kind) {
    case 0: return work(Float());
    case 1: return work(Double());
    case 2: return work(Narrow<true>());
    case 3: return work(Narrow<false>());
    case 4: return work(Integer<int64_t>());
    case 5: return work(Integer<int32_t>());
    case 6: return work(Integer<int16_t>());
    case 7: return work(Integer<int8_t>());
    case 8: return work(Integer<uint8_t>());
    }
}

// What is known of the finite elements so far.
struct Total {
    double count = 0, mean = 0, squares = 0, low = INFINITY, high = -INFINITY;
    int64_t zeros = 0, bad = 0;

    INLINE void join(double n, double other_mean, double other_squares) {
        if (n == 0)
            return;
        const double all = count + n, delta = count ? other_mean - mean : 0;
        squares += other_squares + delta * delta * (count / all * n);
        mean = count ? mean + delta * (n / all) : other_mean;
        count = all;
    }
    INLINE void join(const Total &other) {
        join(other.count, other.mean, other.squares);
        low = other.low < low ? other.low : low;
        high = other.high > high ? other.high : high;
        zeros += other.zeros;
        bad += other.bad;
    }
    INLINE void note(double x) {
        low = x < low ? x : low;
        high = x > high ? x : high;
        zeros += x == 0;
    }
};

// M2 of `n` numbers; Inf where squares leave double's range.
INLINE double about_mean(double sum, double square, double n) {
    const double m2 = square - sum * sum / n;
    return m2 > 0 ? m2 : square < INFINITY ? 0 : INFINITY;
}

template <typename T, int LANES> INLINE double added(Vector<T, LANES> x) {
    double lanes[LANES];
    for (int i = 0; i < LANES; i++)
        lanes[i] = x[i];
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++)
            lanes[i] += lanes[i + width];
    return lanes[0];
}

// Vectors of elements, with sums in type Sum.
template <typename Kind, typename Sum, int LANES> struct Vectors {
    using Element = typename Kind::Stored;
    using Stored = Vector<Element, LANES>;
    using Wide = Vector<typename Kind::Wide, LANES>;
    using Mask = Vector<typename Kind::Mask, LANES>;
    using Sums = Vector<Sum, LANES>;
    static constexpr int64_t STRIDE = LANES * CHAINS;

    Wide low[CHAINS], high[CHAINS];
    Mask zeros[CHAINS] = {};

    INLINE Vectors() {
        for (int c = 0; c < CHAINS; c++) {
            low[c] = Wide{} + static_cast<typename Kind::Wide>(INFINITY);
            high[c] = -low[c];
        }
    }

    // Σ(x − shift) and Σ(x − shift)² of `n` elements, a multiple of STRIDE.
    INLINE void add(const Element *x, int64_t n, Sum shift, double &sum, double &square) {
        Sums sums[CHAINS] = {}, squares[CHAINS] = {};
        for (int64_t i = 0; i < n; i += STRIDE)
            for (int c = 0; c < CHAINS; c++) {
                const Wide number = Kind::template many<LANES>(*(const Stored *)(x + i + c * LANES));
                const Sums d = __builtin_convertvector(number, Sums) - shift;
                sums[c] += d;
                squares[c] += d * d;
                low[c] = number < low[c] ? number : low[c];
                high[c] = number > high[c] ? number : high[c];
                zeros[c] -= (Mask)(number == 0);
            }
        for (int c = 1; c < CHAINS; c++) {
            sums[0] += sums[c];
            squares[0] += squares[c];
        }
        sum = added<Sum, LANES>(sums[0]);
        square = added<Sum, LANES>(squares[0]);
    }

    INLINE void note(Total &total) const {
        for (int c = 0; c < CHAINS; c++)
            for (int lane = 0; lane < LANES; lane++) {
                total.low = low[c][lane] < total.low ? low[c][lane] : total.low;
                total.high = high[c][lane] > total.high ? high[c][lane] : total.high;
                total.zeros += zeros[c][lane];
            }
    }
};

// One by one: what does not fill vectors, and what holds NaN or Inf, which are left out.
template <typename Kind> INLINE void add_singly(Total &total, const typename Kind::Stored *x, int64_t n) {
    int64_t first = 0;
    while (first < n - 1 && !std::isfinite(Kind::one(x[first])))
        first++;
    const double shift = Kind::one(x[first]);
    double sum = 0, square = 0;
    int64_t bad = 0;
    for (int64_t i = 0; i < n; i++) {
        const double number = Kind::one(x[i]), d = number - shift;
        if (!std::isfinite(number)) {
            bad++;
            continue;
        }
        sum += d;
        square += d * d;
        total.note(number);
    }
    const double good = static_cast<double>(n - bad);
    total.bad += bad;
    total.join(good, shift + sum / good, about_mean(sum, square, good));
}

template <typename Kind, typename Sum, int LANES> INLINE Total measure(const typename Kind::Stored *x, int64_t n) {
    using Quick = Vectors<Kind, Sum, LANES>;
    constexpr bool EXACT = sizeof(Sum) == sizeof(double);
    Total total;
    Quick vectors;
    for (int64_t start = 0; start < n; start += BLOCK, x += BLOCK) {
        const int64_t size = n - start < BLOCK ? n - start : BLOCK, whole = size - size % Quick::STRIDE;
        const typename Kind::Wide first = Kind::one(x[0]);
        const double shift = std::isfinite(first) ? first : 0;
        if (whole) {
            const Quick before = vectors;
            double sum, square;
            vectors.add(x, whole, static_cast<Sum>(shift), sum, square);
            const double count = static_cast<double>(whole);
            const double m2 = about_mean(sum, square, count);
            // NaN and Inf cannot be hidden by a sum.
            if (std::isfinite(sum) && (EXACT || (square < INFINITY && m2 > square * SMALLEST_SHARE &&
                                                 m2 > count * SMALLEST_SQUARE))) {
                total.join(count, shift + sum / count, m2);
            } else {
                vectors = before;
                if constexpr (EXACT)
                    add_singly<Kind>(total, x, whole);
                else
                    total.join(measure<Kind, double, LANES / 2>(x, whole));
            }
        }
        if (whole < size)
            add_singly<Kind>(total, x + whole, size - whole);
    }
    vectors.note(total);
    return total;
}

template <typename Kind, typename Sum, int LANES> INLINE void write(const void *data, int64_t n, double *row) {
    const Total total = measure<Kind, Sum, LANES>(static_cast<const typename Kind::Stored *>(data), n);
    const double found[WIDTH] = {static_cast<double>(n), total.mean, total.squares, total.low, total.high,
                                 static_cast<double>(total.zeros), static_cast<double>(total.bad), NAN};
    std::memcpy(row, found, sizeof found);
    if (!total.count)
        row[MEAN] = row[M2] = row[LOW] = row[HIGH] = NAN;
}

// BYTES: of a vector. Floats are summed as such if a quick row will do.
template <int BYTES> INLINE void measure_kind(int32_t kind, bool exact, const void *x, int64_t n, double *row) {
    constexpr int LANES = BYTES / sizeof(double);
    if (!exact && kind == 0)
        return write<Float, float, 2 * LANES>(x, n, row);
    if (!exact && kind == 2)
        return write<Narrow<true>, float, 2 * LANES>(x, n, row);
    if (!exact && kind == 3)
        return write<Narrow<false>, float, 2 * LANES>(x, n, row);
    with_kind(kind, [&](auto element) INLINE_LAMBDA { write<decltype(element), double, LANES>(x, n, row); });
}

// Whether all are finite: 0 · x is 0 for finite x only.
template <int BYTES> INLINE bool is_finite(const float *x, int64_t n) {
    constexpr int LANES = BYTES / sizeof(float);
    using Floats = Vector<float, LANES>;
    Floats sum[4] = {};
    int64_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        for (int c = 0; c < 4; c++)
            sum[c] += *(const Floats *)(x + i + LANES * c) * 0;
    float rest = 0;
    for (; i < n; i++)
        rest += x[i] * 0;
    return rest + added<float, LANES>(sum[0] + sum[1] + (sum[2] + sum[3])) == 0;
}

// Set to 0 what is known of the units that are above 0 in one of the rows; most are in the first few.
template <typename Kind>
void silence_ended_in_rows(const typename Kind::Stored *x, int64_t rows, int64_t units, int32_t *quiet) {
    int32_t silent = 1;
    for (int64_t row = 0; row < rows && silent; row++, x += units) {
        silent = 0;
        for (int64_t unit = 0; unit < units; unit++) {
            quiet[unit] = Kind::one(x[unit]) > 0 ? 0 : quiet[unit];
            silent |= quiet[unit];
        }
    }
}

// The same of (images, units, pixels).
template <typename Kind>
void silence_ended_in_images(const typename Kind::Stored *x, int64_t images, int64_t units, int64_t pixels,
                             int32_t *quiet) {
    for (int64_t image = 0; image < images; image++)
        for (int64_t unit = 0; unit < units; unit++, x += pixels)
            for (int64_t pixel = 0; quiet[unit] && pixel < pixels; pixel++)
                quiet[unit] = Kind::one(x[pixel]) > 0 ? 0 : quiet[unit];
}

// The same for each width of vectors that the processor may have.
#define FOR_PROCESSOR(name, bytes, target)                                                                             \
    target void measure_##name(int32_t kind, bool exact, const void *x, int64_t n, double *row) {                      \
        measure_kind<bytes>(kind, exact, x, n, row);                                                                   \
    }                                                                                                                  \
    target bool is_finite_##name(const float *x, int64_t n) { return is_finite<bytes>(x, n); }

FOR_PROCESSOR(plain, 16, )
#ifdef __x86_64__
FOR_PROCESSOR(avx2, 32, __attribute__((target("avx2,fma"))))
FOR_PROCESSOR(avx512, 64, __attribute__((target("avx512f,avx512vl,avx512dq,avx512bw"))))
#endif

struct Processor {
    void (*measure)(int32_t, bool, const void *, int64_t, double *) = measure_plain;
    bool (*is_finite)(const float *, int64_t) = is_finite_plain;

    explicit Processor(int bytes) {
#ifdef __x86_64__
        __builtin_cpu_init();
        if (bytes >= 32 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
            measure = measure_avx2, is_finite = is_finite_avx2;
        if (bytes >= 64 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))
            measure = measure_avx512, is_finite = is_finite_avx512;
#endif
    }
};
Processor processor(64);

}  // namespace

// Use no vectors of more than so many bytes.
extern "C" void tensorscope_limit(int32_t bytes) { processor = Processor(bytes); }

// Measure `n` elements of a kind into `alone`, and join that to `row`.
extern "C" void tensorscope_measure(const void *data, int64_t n, int32_t kind, int32_t exact, double *alone,
                                    double *row) {
    processor.measure(kind, exact, data, data ? n : 0, alone);  // memory may have been given back
    join_rows(row, alone);
}

// Join one row to another.
extern "C" void tensorscope_join(double *row, const double *other) { join_rows(row, other); }

// Copy every `stride`-th of `n` elements.
extern "C" void tensorscope_sample(const void *data, int64_t n, int64_t stride, int32_t kind, double *sample) {
    with_kind(kind, [&](auto element) {
        using Kind = decltype(element);
        const auto *x = static_cast<const typename Kind::Stored *>(data);
        for (int64_t i = 0; i < n; i += stride)
            *sample++ = Kind::one(x[i]);
    });
}

// Measure by how much every `stride`-th of `n` elements differs from a sample taken before; the sample holds that then.
extern "C" void tensorscope_change(const void *data, int64_t n, int64_t stride, int32_t kind, double *sample,
                                   double *alone, double *row) {
    with_kind(kind, [&](auto element) {
        using Kind = decltype(element);
        const auto *x = static_cast<const typename Kind::Stored *>(data);
        double *changed = sample;
        for (int64_t i = 0; i < n; i += stride, changed++)
            *changed = Kind::one(x[i]) - *changed;
    });
    tensorscope_measure(sample, n ? (n - 1) / stride + 1 : 0, 1, 1, alone, row);
}

// Count the dead units of (outer, units, inner) elements: those that were above 0 in none of the latest passes, given for
// how many passes and samples each has been silent, which is brought up to date.
extern "C" int64_t tensorscope_dead(const void *data, int64_t outer, int64_t units, int64_t inner, int32_t kind,
                                    int32_t samples, int32_t *quiet_passes, int32_t *quiet_samples,
                                    int32_t least_passes, int32_t least_samples) {
    int64_t dead = 0;
    for (int64_t unit = 0; unit < units; unit++)
        quiet_passes[unit]++;
    with_kind(kind, [&](auto element) {
        using Kind = decltype(element);
        const auto *x = static_cast<const typename Kind::Stored *>(data);
        if (inner == 1)
            silence_ended_in_rows<Kind>(x, outer, units, quiet_passes);
        else
            silence_ended_in_images<Kind>(x, outer, units, inner, quiet_passes);
    });
    for (int64_t unit = 0; unit < units; unit++) {
        if (!quiet_passes[unit])
            quiet_samples[unit] = 0;
        else if (quiet_samples[unit] < least_samples)
            quiet_samples[unit] += samples;
        dead += quiet_passes[unit] >= least_passes && quiet_samples[unit] >= least_samples;
    }
    return dead;
}

// The place of the first of many float arrays that holds NaN or Inf; −1 if all are finite.
extern "C" int64_t tensorscope_first_bad(const float *const *arrays, const int64_t *sizes, int64_t count) {
    for (int64_t place = 0; place < count; place++)
        if (arrays[place] && !processor.is_finite(arrays[place], sizes[place]))
            return place;
    return -1;
}
