"""The trading calendar, universes, the price contract and price sources."""
