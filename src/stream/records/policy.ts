// X86_CPUID_POLICY and X86_MSR_POLICY: what the guest's CPU says that it can do, arrays of Xen's public structures. They
// are for the hypervisor; here only their size is known.
//
//   xen_cpuid_leaf_t (24)  leaf u32 | subleaf u32 | a u32 | b u32 | c u32 | d u32
//   xen_msr_entry_t  (16)  idx u32 | flags u32 | val u64

export const CPUID_LEAF_BYTES = 24;
export const MSR_ENTRY_BYTES = 16;
