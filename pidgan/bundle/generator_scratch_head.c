
/* The same with memory of the caller: @NAME@_scratch bytes, which no other thread uses at
 * the same time, at an address that is a multiple of 64. */
extern const size_t @NAME@_scratch;
const size_t @NAME@_scratch = @SCRATCH@;
void @NAME@_row_in(float *restrict targets, const float *restrict conditions,
                   const float *restrict noise, void *restrict scratch);
void @NAME@_batch_in(float *restrict targets, const float *restrict conditions,
                     const float *restrict noise, size_t rows, void *restrict scratch);
