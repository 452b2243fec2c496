"""Pages for people, of one file each that needs nothing but itself."""
