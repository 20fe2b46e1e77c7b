// The port of a PV domain: what libxc asks Xen for, besides the rest of the port, to save and restore a guest that
// knows machine frames. Machine frame numbers (mfn) are 32-bit here as elsewhere; the gfns of a PV domain are mfns.
//
//   guest:  pfn ──p2m (the guest's own table)──▶ mfn        vCPUs, page tables and start_info hold mfns
//   Xen:    mfn ──m2p (one table for the machine)──▶ pfn
//
// Frames are mapped, not copied: what the guest (or Xen) writes to a mapped frame shows here at once, as it does in
// libxc. A mapping belongs to whoever asked for it, until unmap().

import type { GuestWidth } from '../stream/records/pv.js';

export interface PvDomainInfo {
  /** Octets of an unsigned long in the guest (XEN_DOMCTL_get_address_size). */
  readonly guestWidth: GuestWidth;
  /** vCPUs are numbered 0 to maxVcpuId. */
  readonly maxVcpuId: number;
  /** mfn of the page that Xen shares with the domain. */
  readonly sharedInfoFrame: number;
}

export interface FrameMapping {
  /** One page each, as 1024 words of 32 bits (little-endian), in the order that was asked for. */
  readonly frames: readonly Uint32Array[];
  /** Once; does not fail. The views must not be used after it. */
  unmap(): void;
}

/** Xen's machine-to-physical table, mapped. */
export interface M2pMapping {
  /** 64 bits an entry: words 2 mfn and 2 mfn + 1 are the pfn of mfn; all ones where it is nobody's. */
  readonly m2p: Uint32Array;
  /** The highest mfn of the machine (XENMEM_maximum_ram_page). */
  readonly maxMfn: number;
  /** First mfn of the m2p that 32-bit guests see mapped in their page tables; INVALID_FRAME for 64-bit ones. */
  readonly compatM2pMfn0: number;
  /** As a FrameMapping's. */
  unmap(): void;
}

export interface PvDomain {
  info(): Promise<PvDomainInfo>;
  mapM2p(): Promise<M2pMapping>;
  /**
   * Maps the first `count` mfns, which must be the domain's (xc_map_foreign_pages).
   * @throws HypervisorError FRAME_OUT_OF_RANGE
   */
  mapFrames(mfns: Uint32Array, count: number): Promise<FrameMapping>;
}

/** vCPU contexts come as copies that belong to the caller. */
export interface PvSource extends PvDomain {
  vcpuOnline(vcpu: number): Promise<boolean>;
  /** vcpu_guest_context of the guest's width: 2800 or 5168 octets. */
  vcpuContext(vcpu: number): Promise<Uint8Array>;
  /** XEN_DOMCTL_get_ext_vcpucontext; empty: there is none. */
  vcpuExtended(vcpu: number): Promise<Uint8Array>;
  /** XEN_DOMCTL_getvcpuextstate: xcr0, xcr0_accum, xsave area; empty: there is none. */
  vcpuXsave(vcpu: number): Promise<Uint8Array>;
  /** XEN_DOMCTL_get_vcpu_msrs: xen_domctl_vcpu_msr_t, 16 octets each; empty: there are none. */
  vcpuMsrs(vcpu: number): Promise<Uint8Array>;
}

/** One mmuext_op batch is at most this long. */
export const PIN_BATCH_MAX = 1024;

export interface PvTarget extends PvDomain {
  /** XEN_DOMCTL_set_address_size; only before the domain has memory. */
  setGuestWidth(width: GuestWidth): Promise<void>;
  /** All frame numbers in it are mfns. @throws HypervisorError BAD_CONTEXT */
  setVcpuContext(vcpu: number, context: Uint8Array): Promise<void>;
  setVcpuExtended(vcpu: number, context: Uint8Array): Promise<void>;
  setVcpuXsave(vcpu: number, context: Uint8Array): Promise<void>;
  setVcpuMsrs(vcpu: number, msrs: Uint8Array): Promise<void>;
  /**
   * MMUEXT_PIN_L1_TABLE to _L4_TABLE: levels[i] (1 to 4) and mfns[i], the first `count`, at most PIN_BATCH_MAX. Xen
   * looks through each table and what it points to.
   * @throws HypervisorError BAD_CONTEXT if it finds what must not be
   */
  pinTables(levels: Uint8Array, mfns: Uint32Array, count: number): Promise<void>;
  /** Grants console and xenstore rings to the domains that serve them (xc_dom_gnttab_seed). */
  seedGrantTable(
    consoleMfn: number,
    xenstoreMfn: number,
    consoleDomid: number,
    xenstoreDomid: number,
  ): Promise<void>;
}
