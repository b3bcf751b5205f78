"""Meta-World's 50 tasks in words, and the groups in which they are reported.

Difficulties are those of Seo et al. (arXiv 2206.14244), by which MT50 is reported in robotics.
"""

INSTRUCTIONS: dict[str, tuple[str, ...]] = {
    "reach-v3": ("reach the red ball", "move the gripper to the red ball", "go to the red marker"),
    "push-v3": ("push the puck to the goal", "slide the red puck to the green marker", "push the puck onto the marker"),
    "pick-place-v3": ("lift the puck to the goal", "pick the puck and hold it at the blue marker", "pick and place"),
    "door-open-v3": ("open the door", "pull the door open by its handle", "swing the door open"),
    "drawer-open-v3": ("open the drawer", "pull the drawer open", "pull the drawer's handle"),
    "drawer-close-v3": ("close the drawer", "push the drawer shut", "push the drawer in"),
    "button-press-topdown-v3": ("press the button from above", "push the button down", "press the red button"),
    "peg-insert-side-v3": ("insert the peg into the hole", "put the peg into the side of the box", "plug the peg in"),
    "window-open-v3": ("open the window", "slide the window open", "push the window's handle to open it"),
    "window-close-v3": ("close the window", "slide the window shut", "push the window's handle to close it"),
    "assembly-v3": ("put the ring onto the peg", "assemble the ring and the peg"),
    "basketball-v3": ("put the ball into the basket", "dunk the basketball"),
    "bin-picking-v3": ("move the cube to the other bin", "pick the cube out of the bin into the other one"),
    "box-close-v3": ("put the lid onto the box", "close the box with its lid"),
    "button-press-topdown-wall-v3": (
        "press the button from above behind the wall",
        "reach over the wall to the button",
    ),
    "button-press-v3": ("press the button on its front", "push the button in"),
    "button-press-wall-v3": ("press the button on its front behind the wall", "go around the wall to the button"),
    "coffee-button-v3": ("press the coffee machine's button", "start the coffee machine"),
    "coffee-pull-v3": ("pull the mug from the coffee machine", "pull the mug to the marker"),
    "coffee-push-v3": ("push the mug under the coffee machine", "push the mug to the marker at the machine"),
    "dial-turn-v3": ("turn the dial", "rotate the dial by half a turn"),
    "disassemble-v3": ("take the ring off the peg", "lift the ring off its peg"),
    "door-close-v3": ("close the door", "push the door shut"),
    "door-lock-v3": ("lock the door", "turn the lock down"),
    "door-unlock-v3": ("unlock the door", "turn the lock up"),
    "faucet-close-v3": ("close the faucet", "turn the faucet shut"),
    "faucet-open-v3": ("open the faucet", "turn the faucet on"),
    "hammer-v3": ("hammer the nail in", "hit the nail with the hammer"),
    "hand-insert-v3": ("put the hand into the hole", "lower the gripper into the hole"),
    "handle-press-side-v3": ("press the handle down from the side", "push down the handle at the side"),
    "handle-press-v3": ("press the handle down", "push down the handle in front"),
    "handle-pull-side-v3": ("pull the handle up from the side", "lift the handle at the side"),
    "handle-pull-v3": ("pull the handle up", "lift the handle in front"),
    "lever-pull-v3": ("pull the lever up", "turn the lever upwards"),
    "peg-unplug-side-v3": ("unplug the peg", "pull the peg out of the side of the box"),
    "pick-out-of-hole-v3": ("pick the puck out of the hole", "lift the puck from the hole to the marker"),
    "pick-place-wall-v3": ("lift the puck over the wall to the goal", "pick the puck and place it behind the wall"),
    "plate-slide-back-side-v3": ("slide the plate out of the cabinet sideways", "get the plate back from the side"),
    "plate-slide-back-v3": ("slide the plate out of the cabinet", "get the plate back"),
    "plate-slide-side-v3": ("slide the plate into the cabinet sideways", "push the plate in from the side"),
    "plate-slide-v3": ("slide the plate into the cabinet", "push the plate in"),
    "push-back-v3": ("pull the puck back to the goal", "push the puck backwards to the marker"),
    "push-wall-v3": ("push the puck around the wall to the goal", "push the puck behind the wall"),
    "reach-wall-v3": ("reach the red ball behind the wall", "go around the wall to the red marker"),
    "shelf-place-v3": ("put the puck onto the shelf", "lift the puck and place it on the shelf"),
    "soccer-v3": ("kick the ball into the net", "score a goal"),
    "stick-pull-v3": ("pull the thermos with the stick", "hook the thermos with the stick and pull"),
    "stick-push-v3": ("push the thermos with the stick", "take the stick and push the thermos"),
    "sweep-into-v3": ("sweep the cube into the hole", "push the cube into the hole of the table"),
    "sweep-v3": ("sweep the cube off the table", "push the cube over the edge"),
}

MT10 = tuple(INSTRUCTIONS)[:10]
MEDIUM = (
    *("basketball-v3", "bin-picking-v3", "box-close-v3", "coffee-pull-v3", "coffee-push-v3", "hammer-v3"),
    *("peg-insert-side-v3", "push-wall-v3", "soccer-v3", "sweep-v3", "sweep-into-v3"),
)
HARD = ("assembly-v3", "hand-insert-v3", "pick-out-of-hole-v3", "pick-place-v3", "push-v3", "push-back-v3")
VERY_HARD = ("shelf-place-v3", "disassemble-v3", "stick-pull-v3", "stick-push-v3", "pick-place-wall-v3")
EASY = tuple(task for task in INSTRUCTIONS if task not in (*MEDIUM, *HARD, *VERY_HARD))
DIFFICULTIES = {"easy": EASY, "medium": MEDIUM, "hard": HARD, "very hard": VERY_HARD}
GROUPS = {"mt10": MT10, "mt50": tuple(INSTRUCTIONS)}
