/* A block of rows: number i of row r lies at [i * ROWS + r]. */
static void @PRE@evaluate_block(float *restrict targets, const float *restrict conditions,
                           const float *restrict noise@PARAMETER@)
{
    (void)conditions, (void)noise; /* One may do for a graph. */
@BODY@
}

