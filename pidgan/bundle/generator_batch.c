@BATCH_ARRAYS@
    for (size_t first = 0; first < rows; first += ROWS) {
        const size_t count = rows - first < ROWS ? rows - first : ROWS;
        if (count * FEW <= ROWS) {
            /* A block that is nearly empty would take longer than its rows. */
            for (size_t row = first; row < rows; ++row)
                @NAME@_row@IN@(targets + row * @PRE@N_TARGETS,
                           conditions + row * @PRE@N_CONDITIONS,
                           noise + row * @PRE@N_NOISE@ARGUMENT@);
            return;
        }
        for (size_t r = 0; r < ROWS; ++r) {
            /* The last block is filled up with its last row. */
            const size_t row = first + (r < count ? r : count - 1);
            for (size_t i = 0; i < @PRE@N_CONDITIONS; ++i)
                x[i * ROWS + r] = conditions[row * @PRE@N_CONDITIONS + i];
            for (size_t i = 0; i < @PRE@N_NOISE; ++i)
                z[i * ROWS + r] = noise[row * @PRE@N_NOISE + i];
        }
        @PRE@evaluate_block(y, x, z@ARGUMENT@);
        for (size_t r = 0; r < count; ++r) {
            const size_t row = first + r;
            const int finite = @PRE@all_finite(conditions + row * @PRE@N_CONDITIONS,
                                          noise + row * @PRE@N_NOISE);
            for (size_t i = 0; i < @PRE@N_TARGETS; ++i)
                targets[row * @PRE@N_TARGETS + i] = finite ? y[i * ROWS + r] : NAN;
        }
    }
