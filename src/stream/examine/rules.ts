// The rules of the specifications that a stream is held to, each with its name, how much it matters, and what it says.
// Sources: Xen's docs/specs/libxc-migration-stream.pandoc and libxl-migration-stream.pandoc; where they leave a thing
// to the restorer, what libxc's restorer demands (order of records, one X86_PV_INFO, what must have come before END).

export type Severity =
  /** Nothing more can be said of the file. */
  | 'unreadable'
  /** A restorer refuses it, or must. */
  | 'error'
  /** Tolerated by every restorer, and yet not as it should be. */
  | 'warning'
  /** Good to know. */
  | 'note';

export interface Rule {
  readonly severity: Severity;
  readonly says: string;
}

const unreadable = (says: string): Rule => ({ severity: 'unreadable', says });
const error = (says: string): Rule => ({ severity: 'error', says });
const warning = (says: string): Rule => ({ severity: 'warning', says });
const note = (says: string): Rule => ({ severity: 'note', says });

export const RULES = {
  'not-a-stream': unreadable('A stream begins with the header of xl, of libxl or of libxc.'),
  legacy: unreadable('A stream of version 1, from Xen 4.4 or earlier, has to be converted first.'),
  version: unreadable("libxc's stream is of version 2 or 3, libxl's of version 2."),
  'big-endian': unreadable('Streams of x86 guests are little-endian.'),

  wrapper: error(
    "What libvirt's libxl driver or xenopsd (XenServer, XCP-ng) wraps around a stream is whole.",
  ),

  'xl.header': error("xl's header has a byte order, flags and a configuration that fits into it."),
  'xl.config': warning("The configuration in xl's header is JSON with a final NUL."),
  'libxl.header': error("libxl's stream stands behind xl's header."),
  'libxl.options': error("Reserved bits of the options in libxl's header are zero."),
  'libxl.empty': error('END, LIBXC_CONTEXT and CHECKPOINT_END have no body.'),
  'libxl.emulator': error('An emulator record has the id of a known emulator and an index.'),
  'libxl.xenstore-data': error('EMULATOR_XENSTORE_DATA is pairs of strings, each with its NUL.'),
  'libxl.checkpoint-state': error('CHECKPOINT_STATE has a state that is known.'),
  'libxl.direction': error('A primary says CHECKPOINT_STATE NEW only, a secondary everything else.'),
  'libxl.order': error('One LIBXC_CONTEXT, CHECKPOINT_END after each CHECKPOINT, END after that of libxc.'),

  length: error('No record is longer than 128 MiB.'),
  padding: error('Records are padded with zeroes.'),
  'record-type': error('A mandatory record is of a type that the specification names.'),
  'optional-record': note('An optional record of unknown type is skipped by restorers.'),
  truncated: error('A stream ends with END, or with a whole checkpoint.'),
  'no-end': note('A checkpointed stream that broke off has no END.'),
  trailing: error('END is the last record.'),
  handshake: note('xl migrate says more on the same wire after END.'),

  'libxc.header': error("libxc's stream begins with its marker and id."),
  'libxc.options': error("Reserved bits of the options in libxc's image header are zero."),
  'libxc.reserved': error("Reserved octets of libxc's headers are zero."),
  'libxc.domain-header': error('The domain is an x86 PV or HVM domain with pages of 4096 octets.'),
  guest: error('A record belongs to the type of guest that the domain header names.'),
  empty: error('END, VERIFY, CHECKPOINT and STATIC_DATA_END have no body.'),
  'no-content': warning('A record without content is left out; Xen 4.6 to 4.8 wrote some.'),

  'page-data.count': error('PAGE_DATA has at least one pfn.'),
  'page-data.reserved': error("PAGE_DATA's reserved field is zero."),
  'page-data.length': error('PAGE_DATA is as long as its pfns and pages make it.'),
  'page-data.pfn-reserved': error('Bits 52 to 59 of a pfn entry are zero.'),
  'page-data.pfn-type': error('A pfn entry carries a page type that is known.'),
  'page-data.pfn-range': error("A pfn is one of the domain's."),

  'static-data.version': error('A version-2 stream has neither STATIC_DATA_END nor CPU policies.'),
  'static-data.end': error('A version-3 stream says STATIC_DATA_END before any memory or register.'),
  'static-data.twice': error('STATIC_DATA_END comes once.'),
  'static-data.late': error('Static data comes before STATIC_DATA_END.'),
  order: error('X86_PV_INFO, X86_PV_P2M_FRAMES, PAGE_DATA, vCPU records: each needs those before it.'),
  'pv-info.twice': error('X86_PV_INFO comes once.'),
  missing: error(
    "A domain has its memory and its registers (an HVM domain's may be in its device model's state) in the stream before a checkpoint or END.",
  ),
  'end-in-checkpoint': error('Between the last CHECKPOINT and END there is no record.'),

  'pv-info': error('X86_PV_INFO has width 4 and 3 levels, or width 8 and 4 levels.'),
  'pv-info.reserved': error("X86_PV_INFO's reserved fields are zero."),
  'p2m-frames': error('X86_PV_P2M_FRAMES has a range of pfns and a frame for each part of it.'),
  vcpu: error('A vCPU record has an id and a context of the size of its kind.'),
  'vcpu.reserved': error("A vCPU record's reserved field is zero."),
  'shared-info': error('SHARED_INFO is one page.'),
  'tsc-info': error('X86_TSC_INFO has 24 octets.'),
  'tsc-info.reserved': error("X86_TSC_INFO's reserved field is zero."),
  'hvm-context': error('HVM_CONTEXT is not empty.'),
  'hvm-params': error('HVM_PARAMS is as long as its count makes it.'),
  'hvm-params.reserved': error("HVM_PARAMS' reserved field is zero."),
  'hvm-params.first': note('HVM_PARAMS should precede HVM_CONTEXT; Xen writes them the other way round.'),
  toolstack: warning('TOOLSTACK is deprecated.'),
  'cpuid-policy': error('X86_CPUID_POLICY is leaves of 24 octets.'),
  'msr-policy': error('X86_MSR_POLICY is entries of 16 octets.'),
  disks: error('DISKS has 1 to 256 disks, each with a name of its own and a size in sectors.'),
  'disks.place': error('DISKS comes once, before any memory, and before DISK_WRITES.'),
  'disk-writes': error('DISK_WRITES has extents that ascend, and the data of those that have some.'),
  'disk-writes.range': error('DISK_WRITES is about octets of a disk in DISKS.'),
  'dirty-pfn-list': error('CHECKPOINT_DIRTY_PFN_LIST is pfns of 8 octets.'),
  'dirty-pfn-list.direction': error('CHECKPOINT_DIRTY_PFN_LIST goes from secondary to primary.'),
  'back-channel': error('On the back channel only CHECKPOINT_DIRTY_PFN_LIST and CHECKPOINT_STATE come.'),
} as const satisfies Readonly<Record<string, Rule>>;

export type RuleId = keyof typeof RULES;

export interface Finding {
  readonly rule: RuleId;
  readonly severity: Severity;
  /** Of the octet in the file that it is about, or of the record's header. */
  readonly offset: number;
  /** Name of the record; null if it is about a header or the whole. */
  readonly record: string | null;
  readonly message: string;
}
