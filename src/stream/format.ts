// The numbers of the libxc migration stream (version 3): what stands where, what it is called, and the limits.
// Source: Xen's docs/specs/libxc-migration-stream.pandoc, checked against streams that Xen 4.17 wrote.
//
//   image header 24 | domain header 16 | record | record | … | END
//   record = type u32 | length u32 | body | zero padding to 8 octets
//
// The image header is big-endian always; everything after it is little-endian in the streams that we handle.

export const PAGE_SHIFT = 12;
/** Octets of a page. */
export const PAGE_SIZE = 4096;

export const IMAGE_HEADER_BYTES = 24;
export const DOMAIN_HEADER_BYTES = 16;
export const RECORD_HEADER_BYTES = 8;
/** Octets of PAGE_DATA's own header (count u32, reserved u32), before the pfn list. */
export const PAGE_DATA_HEADER_BYTES = 8;
/** Octets of an entry of that list. */
export const PAGE_DATA_ENTRY_BYTES = 8;
/** Records are padded with zeroes to a multiple of this. */
export const RECORD_ALIGN = 8;

/** libxc's REC_LENGTH_MAX: no record, padding included, is longer. */
export const RECORD_LENGTH_MAX = 128 * 1024 * 1024;
/** libxc's MAX_BATCH_SIZE: pfns that a saver puts into one PAGE_DATA record. */
export const MAX_BATCH_SIZE = 1024;

/** "XENF" */
export const IMAGE_ID = 0x58454e46;
export const IMAGE_VERSION = 3;
/** The oldest version that can be read. */
export const IMAGE_VERSION_OLDEST = 2;
/** Bit 0 of the image header's options: the rest of the stream is big-endian. */
export const IMAGE_OPTION_BIG_ENDIAN = 1;

export const DomainType = { X86_PV: 1, X86_HVM: 2 } as const;
export type DomainType = (typeof DomainType)[keyof typeof DomainType];

export const RecordType = {
  END: 0x00,
  PAGE_DATA: 0x01,
  X86_PV_INFO: 0x02,
  X86_PV_P2M_FRAMES: 0x03,
  X86_PV_VCPU_BASIC: 0x04,
  X86_PV_VCPU_EXTENDED: 0x05,
  X86_PV_VCPU_XSAVE: 0x06,
  SHARED_INFO: 0x07,
  X86_TSC_INFO: 0x08,
  HVM_CONTEXT: 0x09,
  HVM_PARAMS: 0x0a,
  TOOLSTACK: 0x0b,
  X86_PV_VCPU_MSRS: 0x0c,
  VERIFY: 0x0d,
  CHECKPOINT: 0x0e,
  CHECKPOINT_DIRTY_PFN_LIST: 0x0f,
  STATIC_DATA_END: 0x10,
  X86_CPUID_POLICY: 0x11,
  X86_MSR_POLICY: 0x12,
  /** Romulus's own, optional (records/disks.ts). */
  DISKS: 0xd15c0001,
  DISK_WRITES: 0xd15c0002,
} as const;
export type RecordType = (typeof RecordType)[keyof typeof RecordType];

/** Bit 31 of a record's type: a reader that does not know the record may skip it. */
export const RECORD_OPTIONAL = 0x80000000;

/**
 * Page types (XEN_DOMCTL_PFINFO_*), as the 4-bit value that PAGE_DATA carries in bits 60 to 63 of a pfn entry.
 * 5 to 8 are reserved.
 */
export const PageType = {
  NOTAB: 0x0,
  L1TAB: 0x1,
  L2TAB: 0x2,
  L3TAB: 0x3,
  L4TAB: 0x4,
  L1TAB_PIN: 0x9,
  L2TAB_PIN: 0xa,
  L3TAB_PIN: 0xb,
  L4TAB_PIN: 0xc,
  BROKEN: 0xd,
  XALLOC: 0xe,
  XTAB: 0xf,
} as const;
export type PageType = (typeof PageType)[keyof typeof PageType];

/** Page type known to the migration logic (libxc's is_known_page_type). */
export function isKnownPageType(type: number): boolean {
  return (type >= 0 && type <= 4) || (type >= 9 && type <= 15);
}

/** Page type backed by RAM in the guest (libxc's page_type_to_populate): all with data, and XALLOC. */
export function isPopulatedPageType(type: number): boolean {
  return hasPageData(type) || type === PageType.XALLOC;
}

/** Page type whose page stands in the record (libxc's page_type_has_stream_data): NOTAB and L1 to L4, pinned or not. */
export function hasPageData(type: number): boolean {
  return (type >= 0 && type <= 4) || (type >= 9 && type <= 12);
}

/** The highest pfn that Romulus handles: pfns are kept in 32 bits (16 TiB of guest), ~0 is INVALID_FRAME. */
export const PFN_MAX = 0xfffffffe;
/** An invalid pfn, gfn or mfn: libxc's INVALID_MFN, cut to 32 bits. */
export const INVALID_FRAME = 0xffffffff;

const domainTypeNames: Readonly<Record<number, string>> = {
  [DomainType.X86_PV]: 'x86 PV',
  [DomainType.X86_HVM]: 'x86 HVM',
};

const recordTypeNames: Readonly<Record<number, string>> = {
  [RecordType.END]: 'End',
  [RecordType.PAGE_DATA]: 'Page data',
  [RecordType.X86_PV_INFO]: 'x86 PV info',
  [RecordType.X86_PV_P2M_FRAMES]: 'x86 PV P2M frames',
  [RecordType.X86_PV_VCPU_BASIC]: 'x86 PV vcpu basic',
  [RecordType.X86_PV_VCPU_EXTENDED]: 'x86 PV vcpu extended',
  [RecordType.X86_PV_VCPU_XSAVE]: 'x86 PV vcpu xsave',
  [RecordType.SHARED_INFO]: 'Shared info',
  [RecordType.X86_TSC_INFO]: 'x86 TSC info',
  [RecordType.HVM_CONTEXT]: 'HVM context',
  [RecordType.HVM_PARAMS]: 'HVM params',
  [RecordType.TOOLSTACK]: 'Toolstack',
  [RecordType.X86_PV_VCPU_MSRS]: 'x86 PV vcpu msrs',
  [RecordType.VERIFY]: 'Verify',
  [RecordType.CHECKPOINT]: 'Checkpoint',
  [RecordType.CHECKPOINT_DIRTY_PFN_LIST]: 'Checkpoint dirty pfn list',
  [RecordType.STATIC_DATA_END]: 'Static data end',
  [RecordType.X86_CPUID_POLICY]: 'x86 CPUID policy',
  [RecordType.X86_MSR_POLICY]: 'x86 MSR policy',
  [RecordType.DISKS]: 'Disks',
  [RecordType.DISK_WRITES]: 'Disk writes',
};

/** libxc's dhdr_type_to_str. */
export function domainTypeName(type: number): string {
  return domainTypeNames[type] ?? 'Reserved';
}

/** libxc's rec_type_to_str. */
export function recordTypeName(type: number): string {
  return recordTypeNames[type] ?? 'Reserved';
}

export function isOptionalRecord(type: number): boolean {
  return type >= RECORD_OPTIONAL;
}

/** Octets that a body of `length` octets takes with its padding. */
export function paddedLength(length: number): number {
  return Math.ceil(length / RECORD_ALIGN) * RECORD_ALIGN;
}
