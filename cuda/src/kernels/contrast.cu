// Losses over similarities: each anchor against all candidates.

// Which candidates are in an anchor's denominator.
#define ALL 0       // positives and negatives
#define NEGATIVES 1 // negatives
#define EACH 2      // for each positive, itself and the negatives
#define UNLABELLED 3   // positives, and candidates without a label

// The label of a candidate that is no anchor's positive.
#define NO_LABEL 0xffffffffu

// What a candidate is to an anchor.
struct Relation {
    bool positive, counts;
};

__device__ inline Relation related(u32 anchor, u32 candidate, bool itself, int denominator) {
    Relation r;
    r.positive = !itself && anchor == candidate && anchor != NO_LABEL;
    r.counts = !itself && (r.positive ? denominator == ALL || denominator == UNLABELLED : denominator != UNLABELLED || candidate == NO_LABEL);
    return r;
}

// The largest value of a block's threads, at shared[0] for its first thread.
__device__ inline void largest(double *shared, double value) {
    shared[threadIdx.x] = value;
    for (int few = 16; few > 0; few -= 15) {
        __syncthreads();
        if (threadIdx.x < few)
            for (int at = threadIdx.x + few; at < 16 * few; at += few)
                if (shared[at] > shared[threadIdx.x]) shared[threadIdx.x] = shared[at];
    }
}

// log(1 + eˣ); its derivative is e^(x − softplus(x)).
__device__ inline double softplus(double x) { return (x > 0 ? x : 0) + log(1 + exp(x > 0 ? -x : x)); }

// Each block has one anchor, number `first` + its own. Its products with the candidates are in `near` (those with a gradient: n of them, the
// first of which is row `offset`) and in `far` (further ones, k). Both become ∂L/∂product, and losses[anchor] gets the anchor's part of
//
//     L = Σ weight · Σ_p (log Σ exp s − s_p)         s = product · inverse_temperature, p the positives, the inner sum over the denominator
//     L = Σ weight · Σ_p log(1 + exp(log Σ exp s − s_p))   for EACH
//
// labels has the labels of all rows with a gradient, memory_labels those of the others; weights the weight of a positive of each row.
#define PARAMETERS(T)                                                                                                                      \
    (T * near, T * far, int n, int k, int first, int offset, const u32 *labels, const u32 *memory_labels, const double *weights, double inverse_temperature, \
     int denominator, double *losses)
template <class T>
__device__ void contrast(T *near, T *far, int n, int k, int first, int offset, const u32 *labels, const u32 *memory_labels,
                         const double *weights, double inverse_temperature, int denominator, double *losses) {
    __shared__ double shared[2 * 256];
    int anchor = first + (int)blockIdx.x;
    u32 label = labels[anchor];
    double weight = weights[anchor];
    near += (u32)n * blockIdx.x;
    far += (u32)k * blockIdx.x;
#define CANDIDATES for (int j = threadIdx.x; j < n + k; j += blockDim.x)
#define PLACE (j < n ? near + j : far + (j - n))
#define RELATION (j < n ? related(label, labels[offset + j], offset + j == anchor, denominator) : related(label, memory_labels[j - n], false, denominator))
    // Far below any similarity: what an anchor has without a denominator.
    double top = -1e30;
    CANDIDATES {
        T *at = PLACE;
        *at *= (T)inverse_temperature;
        if (RELATION.counts && (double)*at > top) top = (double)*at;
    }
    largest(shared, top);
    __syncthreads();
    top = shared[0];
    __syncthreads();
    double sum = 0;
    CANDIDATES if (RELATION.counts) sum += (double)exp(*PLACE - (T)top);
    both_sums(shared, sum, 0);
    __syncthreads();
    sum = shared[0];
    __syncthreads();
    double whole = top + log(sum);
    // The losses of the positives, and the sum of their pulls, which the candidates of the denominator share as a push.
    double loss = 0, pull = 0;
    CANDIDATES {
        Relation r = RELATION;
        if (!r.positive) continue;
        double x = whole - (double)*PLACE;
        double part = denominator == EACH ? softplus(x) : x;
        loss += part;
        pull += denominator == EACH ? exp(x - part) : 1;
    }
    both_sums(shared, loss, pull);
    __syncthreads();
    loss = shared[0];
    pull = shared[256];
    double push = sum > 0 ? weight * pull * inverse_temperature * exp(-log(sum)) : 0;
    CANDIDATES {
        T *at = PLACE;
        Relation r = RELATION;
        T d = r.counts ? exp(*at - (T)top) * (T)push : (T)0;
        if (r.positive) {
            double x = whole - (double)*at;
            d -= (T)(weight * inverse_temperature * (denominator == EACH ? exp(x - softplus(x)) : 1));
        }
        *at = d;
    }
    if (threadIdx.x == 0) losses[anchor] = weight * loss;
#undef CANDIDATES
#undef PLACE
#undef RELATION
}
FOR_REAL_LARGE(contrast, PARAMETERS, (near, far, n, k, first, offset, labels, memory_labels, weights, inverse_temperature, denominator, losses))
#undef PARAMETERS
