
void @NAME@_row_in(float *restrict targets, const float *restrict conditions,
                   const float *restrict noise, void *restrict scratch)
{
    (void)scratch;
    @NAME@_row(targets, conditions, noise);
}

void @NAME@_batch_in(float *restrict targets, const float *restrict conditions,
                     const float *restrict noise, size_t rows, void *restrict scratch)
{
    (void)scratch;
    @NAME@_batch(targets, conditions, noise, rows);
}
