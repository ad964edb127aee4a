"""What an adapter file holds: its header, its keys in every layout, its modules and their ΔW."""
