// What a MemoryPvDomain does for PV alone: its width, its shared info page, mappings, vCPUs, pins, grants.

import { INVALID_FRAME } from '../../src/stream/format.js';
import { type GuestWidth, VCPU_CONTEXT_BYTES } from '../../src/stream/records/pv.js';
import { type DomainState, HypervisorError } from '../../src/hypervisor/port.js';
import {
  type FrameMapping,
  type M2pMapping,
  PIN_BATCH_MAX,
  type PvDomainInfo,
  type PvSource,
  type PvTarget,
} from '../../src/hypervisor/port-pv.js';
import { type MemoryMachine, XEN_COMPAT_M2P_MFN } from './machine.js';
import { pinTable, promoteTable } from './page-types.js';
import type { PvMemory } from './pv-memory.js';

/** One vCPU as Xen keeps it; empty arrays: no state of that kind. */
export interface MemoryVcpu {
  online: boolean;
  context: Uint8Array;
  extended: Uint8Array;
  xsave: Uint8Array;
  msrs: Uint8Array;
}

export interface SeededGrants {
  readonly consoleMfn: number;
  readonly xenstoreMfn: number;
  readonly consoleDomid: number;
  readonly xenstoreDomid: number;
}

const NO_BYTES = new Uint8Array(0);
/** VGCF_online */
const ONLINE = 1 << 5;
const FLAGS_OFFSET = 512;
/** Where a context's ctrlreg[0] stands. */
const CONTROL_REGISTERS = { 4: 2716, 8: 4984 } as const;

/** The domain, as far as these calls need it. */
export interface PvCaller {
  readonly machine: MemoryMachine;
  readonly memory: PvMemory;
  /** Counts the call, lets the script have its say, and carries it out. */
  call<T>(call: `pv.${keyof PvSource | keyof PvTarget}`, effect: () => T): Promise<T>;
  /** @throws HypervisorError WRONG_STATE, DOMAIN_GONE */
  need(state: DomainState): void;
  /** @throws HypervisorError DOMAIN_GONE */
  needGuest(): void;
}

export class PvCalls implements PvSource, PvTarget {
  width: GuestWidth;
  readonly vcpus: readonly MemoryVcpu[];
  readonly sharedInfoMfn: number;
  /** How long each batch of pins was. */
  readonly pinBatches: number[] = [];
  grants: SeededGrants | null = null;
  readonly #domain: PvCaller;

  constructor(domain: PvCaller, width: GuestWidth, vcpus: number) {
    this.#domain = domain;
    this.width = width;
    // A page of Xen's, shared: the domain's, but nowhere in its physical memory.
    this.sharedInfoMfn = domain.machine.allot(domain.memory.id);
    if (this.sharedInfoMfn === INVALID_FRAME) {
      throw new HypervisorError('OUT_OF_MEMORY', 'no memory left for a domain');
    }
    this.vcpus = Array.from({ length: vcpus }, () => ({
      online: false,
      context: NO_BYTES,
      extended: NO_BYTES,
      xsave: NO_BYTES,
      msrs: NO_BYTES,
    }));
  }

  info(): Promise<PvDomainInfo> {
    return this.#domain.call('pv.info', () => ({
      guestWidth: this.width,
      maxVcpuId: this.vcpus.length - 1,
      sharedInfoFrame: this.sharedInfoMfn,
    }));
  }

  mapM2p(): Promise<M2pMapping> {
    return this.#domain.call('pv.mapM2p', () => {
      const { machine } = this.#domain;
      return {
        m2p: machine.m2p,
        maxMfn: machine.frames - 1,
        compatM2pMfn0: this.width === 4 ? XEN_COMPAT_M2P_MFN : INVALID_FRAME,
        unmap: this.#opened(),
      };
    });
  }

  mapFrames(mfns: Uint32Array, count: number): Promise<FrameMapping> {
    return this.#domain.call('pv.mapFrames', () => {
      const { machine } = this.#domain;
      this.#domain.needGuest();
      this.#domain.memory.check(mfns, count);
      const frames = Array.from(mfns.subarray(0, count), (mfn) => machine.words(mfn));
      return { frames, unmap: this.#opened() };
    });
  }

  vcpuOnline(vcpu: number): Promise<boolean> {
    return this.#domain.call('pv.vcpuOnline', () => this.#vcpu(vcpu).online);
  }

  vcpuContext(vcpu: number): Promise<Uint8Array> {
    return this.#domain.call('pv.vcpuContext', () => this.#vcpu(vcpu).context.slice());
  }

  vcpuExtended(vcpu: number): Promise<Uint8Array> {
    return this.#domain.call('pv.vcpuExtended', () => this.#vcpu(vcpu).extended.slice());
  }

  vcpuXsave(vcpu: number): Promise<Uint8Array> {
    return this.#domain.call('pv.vcpuXsave', () => this.#vcpu(vcpu).xsave.slice());
  }

  vcpuMsrs(vcpu: number): Promise<Uint8Array> {
    return this.#domain.call('pv.vcpuMsrs', () => this.#vcpu(vcpu).msrs.slice());
  }

  setGuestWidth(width: GuestWidth): Promise<void> {
    return this.#domain.call('pv.setGuestWidth', () => {
      this.#domain.need('created');
      this.width = width;
    });
  }

  setVcpuContext(vcpu: number, context: Uint8Array): Promise<void> {
    return this.#domain.call('pv.setVcpuContext', () => {
      const { machine, id } = this.#domain.memory;
      const at = this.#vcpu(vcpu);
      if (context.length !== VCPU_CONTEXT_BYTES[this.width]) {
        throw new HypervisorError('BAD_CONTEXT', `a vCPU context of ${context.length} octets`, { vcpu });
      }
      for (const table of topTables(context, this.width)) {
        promoteTable(machine, id, this.width, table, this.width === 8 ? 4 : 3);
      }
      at.context = context.slice();
      at.online = ((context[FLAGS_OFFSET] ?? 0) & ONLINE) !== 0;
    });
  }

  setVcpuExtended(vcpu: number, context: Uint8Array): Promise<void> {
    return this.#domain.call('pv.setVcpuExtended', () => {
      this.#vcpu(vcpu).extended = context.slice();
    });
  }

  setVcpuXsave(vcpu: number, context: Uint8Array): Promise<void> {
    return this.#domain.call('pv.setVcpuXsave', () => {
      this.#vcpu(vcpu).xsave = context.slice();
    });
  }

  setVcpuMsrs(vcpu: number, msrs: Uint8Array): Promise<void> {
    return this.#domain.call('pv.setVcpuMsrs', () => {
      this.#vcpu(vcpu).msrs = msrs.slice();
    });
  }

  pinTables(levels: Uint8Array, mfns: Uint32Array, count: number): Promise<void> {
    return this.#domain.call('pv.pinTables', () => {
      if (count > PIN_BATCH_MAX) {
        throw new HypervisorError('BAD_CONTEXT', `${count} pins in one call`, {
          count,
          limit: PIN_BATCH_MAX,
        });
      }
      for (let i = 0; i < count; i++) this.pin(mfns[i] ?? INVALID_FRAME, levels[i] ?? 0);
      this.pinBatches.push(count);
    });
  }

  seedGrantTable(
    consoleMfn: number,
    xenstoreMfn: number,
    consoleDomid: number,
    xenstoreDomid: number,
  ): Promise<void> {
    return this.#domain.call('pv.seedGrantTable', () => {
      this.#domain.memory.check(Uint32Array.of(consoleMfn, xenstoreMfn), 2);
      this.grants = { consoleMfn, xenstoreMfn, consoleDomid, xenstoreDomid };
    });
  }

  // ── for the guest and for tests ──

  /** The guest pins one of its tables. @throws HypervisorError BAD_CONTEXT */
  pin(mfn: number, level: number): void {
    pinTable(this.#domain.machine, this.#domain.memory.id, this.width, mfn, level);
  }

  get sharedInfo(): Uint8Array {
    return this.#domain.machine.octets(this.sharedInfoMfn);
  }

  #vcpu(id: number): MemoryVcpu {
    this.#domain.needGuest();
    const vcpu = this.vcpus[id];
    if (vcpu === undefined) {
      throw new HypervisorError('BAD_CONTEXT', `the domain has no vCPU ${id}`, { vcpu: id });
    }
    return vcpu;
  }

  /** Counts a mapping until it is given back; twice is the caller's mistake. */
  #opened(): () => void {
    const { machine } = this.#domain;
    machine.openMappings++;
    let open = true;
    return () => {
      if (!open) throw new HypervisorError('FAILED', 'a mapping was unmapped twice');
      open = false;
      machine.openMappings--;
    };
  }
}

/** The frames of a context's cr3 and, of a 64-bit guest that has one, cr1. */
function topTables(context: Uint8Array, width: GuestWidth): number[] {
  const view = new DataView(context.buffer, context.byteOffset, context.byteLength);
  const registers = CONTROL_REGISTERS[width];
  if (width === 4) {
    const cr3 = view.getUint32(registers + 12, true);
    return [((cr3 >>> 12) | (cr3 << 20)) >>> 0];
  }
  const cr3 = Number(view.getBigUint64(registers + 24, true) >> 12n);
  const cr1 = Number(view.getBigUint64(registers + 8, true) >> 12n);
  return cr1 === 0 ? [cr3] : [cr3, cr1];
}
