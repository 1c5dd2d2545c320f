    for (size_t row = 0; row < rows; ++row)
        @NAME@_row@IN@(targets + row * @PRE@N_TARGETS, conditions + row * @PRE@N_CONDITIONS,
                   noise + row * @PRE@N_NOISE@ARGUMENT@);
