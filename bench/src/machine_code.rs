//! Machine code: the system calls that a function makes in its own frame.
//!
//! Parses the output of `objdump --disassemble --demangle --no-show-raw-insn` for an x86_64 program
//! on Linux. There the number of a system call is in `eax`, and rustix loads it as a constant
//! before its `syscall`:
//!
//! ```text
//! 00000000000d9880 <ropewalk::reactor::run::<impl ropewalk::reactor::core::Core>::run>:
//!    d9d31:       mov    $0x2d,%eax
//!    d9d36:       syscall
//! ```

use std::collections::BTreeSet;

/// Returns the numbers of the system calls in each function whose name ends in `suffix`. A function
/// that the compiler has duplicated occurs once for each copy.
pub fn system_calls(disassembly: &str, suffix: &str) -> Vec<BTreeSet<u32>> {
    let mut functions: Vec<BTreeSet<u32>> = Vec::new();
    let (mut is_in_function, mut number) = (false, None);
    for line in disassembly.lines() {
        if let Some(name) = function_name(line) {
            (is_in_function, number) = (name.ends_with(suffix), None);
            if is_in_function {
                functions.push(BTreeSet::new());
            }
        }
        let Some((_, instruction)) = line.split_once(":\t").filter(|_| is_in_function) else { continue };
        let (mnemonic, operands) = instruction.split_once(' ').unwrap_or((instruction, ""));
        match (mnemonic, operands.trim()) {
            ("syscall", _) => {
                if let (Some(calls), Some(number)) = (functions.last_mut(), number.take()) {
                    calls.insert(number);
                }
            }
            ("mov", operands) if operands.ends_with(",%eax") => number = constant(operands),
            // A comparison also has `eax` as its last operand, and leaves it unchanged.
            ("cmp" | "test", _) => {}
            (mnemonic, operands) => {
                let is_overwritten = [",%eax", ",%rax", ",%ax", ",%al"].iter().any(|end| operands.ends_with(end));
                if is_overwritten || mnemonic == "call" {
                    number = None;
                }
            }
        }
    }
    functions
}

/// Returns the name in a line like `00000000000d9880 <name>:`.
fn function_name(line: &str) -> Option<&str> {
    let (address, name) = line.split_once(" <")?;
    let is_address = !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_hexdigit());
    name.strip_suffix(">:").filter(|_| is_address)
}

/// Returns the number in operands like `$0x119,%eax`.
fn constant(operands: &str) -> Option<u32> {
    let (number, _) = operands.strip_prefix("$0x")?.split_once(',')?;
    u32::from_str_radix(number, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOP: &str = "
00000000000d9880 <ropewalk::reactor::core::Core>::run>:
   d9880:\tpush   %rbp
   d9881:\tmov    $0x119,%eax
   d9886:\txor    %r10d,%r10d
   d9889:\tsyscall
   d988b:\tcmp    $0xfffffffffffff001,%rax
   d9891:\tmov    $0x2d,%eax
   d9896:\tcmp    %eax,%eax
   d9899:\tsyscall
   d989b:\tret

00000000000d98a0 <ropewalk::reactor::core::Core>::runs>:
   d98a0:\tmov    $0x2c,%eax
   d98a5:\tsyscall
";

    fn of_run(disassembly: &str) -> Vec<BTreeSet<u32>> {
        system_calls(disassembly, "Core>::run")
    }

    /// System calls of another function do not count as the function's own.
    #[test]
    fn calls_in_the_frame_are_found() {
        assert_eq!(of_run(LOOP), [BTreeSet::from([0x119, 0x2d])]);
        assert_eq!(system_calls(LOOP, "Core>::runs"), [BTreeSet::from([0x2c])]);
        assert_eq!(system_calls(LOOP, "Core>::walk"), []);
    }

    /// A system call in a callee is not found, and neither is one whose number was overwritten
    /// before it.
    #[test]
    fn calls_that_left_the_frame_are_missed() {
        let left = LOOP.replace("cmp    %eax,%eax", "call   e0000 <receive>");
        assert_eq!(of_run(&left), [BTreeSet::from([0x119])]);
        let without = LOOP.replace("   d9889:\tsyscall\n", "");
        assert_eq!(of_run(&without), [BTreeSet::from([0x2d])]);
        for overwrites in ["mov    %ecx,%eax", "movzbl (%rdi),%eax", "mov    (%rdi),%rax", "xor    %eax,%eax"] {
            let other = LOOP.replace("xor    %r10d,%r10d", overwrites);
            assert_eq!(of_run(&other), [BTreeSet::from([0x2d])], "{overwrites}");
        }
    }

    /// Each copy of a function is judged by itself.
    #[test]
    fn copies_are_kept_apart() {
        let twice = format!("{LOOP}{}", LOOP.replace("$0x2d", "$0x2c"));
        assert_eq!(of_run(&twice), [BTreeSet::from([0x119, 0x2d]), BTreeSet::from([0x119, 0x2c])]);
    }
}
