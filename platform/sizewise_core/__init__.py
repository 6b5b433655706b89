"""What every package stands on: storage paths, atomic files, errors, units, compiled code. It imports none of ours."""
