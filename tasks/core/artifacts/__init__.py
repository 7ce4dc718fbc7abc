"""Operations on stored artifacts: promotion, garbage collection, accepting and adopting changes."""
