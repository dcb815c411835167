"""`python -m predictor`."""

from environment.stopping import end_at_sigterm

if __name__ == "__main__":
    end_at_sigterm()
    from predictor.program import main

    main()
