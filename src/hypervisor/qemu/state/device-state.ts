// The device-state blob of xen-save-devices-state: QEMU writes it to a file without a name, whose descriptor it was
// given at its birth (or, attached, to a file in a private directory). It is a QEMU migration stream without RAM:
//
//   "QEVM"  u32 version (3)  sections of devices and vCPUs …  EOF

import { closeSync, fstatSync, ftruncateSync, readSync } from 'node:fs';
import {
  HypervisorError,
  failed,
  unsupported,
  type CpuPolicy,
  type HvmParam,
  type TscInfo,
} from '../../port.js';

const MAGIC = Buffer.from('QEVM', 'ascii');
const VERSION = 3;
/** The largest seen is 125 KB; a device that keeps a screen has a few MiB. */
export const DEVICE_STATE_BYTES_MAX = 32 * 1024 * 1024;
/** The magic and the version. */
export const DEVICE_STATE_HEADER = Buffer.from('QEVM\0\0\0\x03', 'latin1');
export const DEVICE_STATE_HEADER_BYTES = DEVICE_STATE_HEADER.length;

export class DeviceStateFile {
  readonly fd: number;
  /** As QEMU opens it. */
  readonly path: string;
  readonly #bury: () => void;
  #closed = false;

  /** Takes the descriptor over. `bury` removes what has a name. */
  constructor(fd: number, path: string, bury: () => void = () => undefined) {
    this.fd = fd;
    this.path = path;
    this.#bury = bury;
  }

  /** Before each save: what was there is gone. */
  clear(): void {
    ftruncateSync(this.fd, 0);
  }

  get size(): number {
    return fstatSync(this.fd).size;
  }

  /** @throws HypervisorError FAILED or BAD_CONTEXT */
  read(): Uint8Array {
    try {
      const { size } = this;
      const blob = new Uint8Array(Math.min(size, DEVICE_STATE_BYTES_MAX + 1));
      for (let at = 0; at < blob.length;) {
        const count = readSync(this.fd, blob, at, blob.length - at, at);
        if (count === 0) break;
        at += count;
      }
      checkDeviceState(blob);
      return blob;
    } catch (error) {
      if (error instanceof HypervisorError) throw error;
      throw failed('the device state cannot be read', {}, error);
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.fd);
    this.#bury();
  }
}

/** @throws HypervisorError BAD_CONTEXT if it is no device state of QEMU */
export function checkDeviceState(blob: Uint8Array): void {
  const refuse = (message: string, facts = {}): HypervisorError =>
    new HypervisorError('BAD_CONTEXT', message, { length: blob.length, ...facts });
  if (blob.length > DEVICE_STATE_BYTES_MAX) {
    throw refuse('the device state is too large', { limit: DEVICE_STATE_BYTES_MAX });
  }
  if (blob.length < DEVICE_STATE_HEADER_BYTES || MAGIC.compare(blob, 0, MAGIC.length) !== 0) {
    throw refuse('the device state is not one of QEMU');
  }
  const version = new DataView(blob.buffer, blob.byteOffset, blob.length).getUint32(4, false);
  if (version !== VERSION) {
    throw refuse('the device state has an unknown format', { version, expected: VERSION });
  }
}

/** The blob of a device state with the section of memory that is not shared before its devices. */
export function withMemory(state: Uint8Array, memory: Uint8Array): Uint8Array {
  const header = state.subarray(0, DEVICE_STATE_HEADER_BYTES);
  return Buffer.concat([header, memory, state.subarray(DEVICE_STATE_HEADER_BYTES)]);
}

/** All state of a QEMU domain is in its device state (emulatorContext): beside that there is nothing to be saved. */
export abstract class DeviceStateAlone {
  hvmContext(): Promise<Uint8Array> {
    return Promise.resolve(new Uint8Array(0));
  }

  hvmParams(): Promise<readonly HvmParam[]> {
    return Promise.resolve([]);
  }

  tscInfo(): Promise<TscInfo> {
    return Promise.resolve({ mode: 0, khz: 0, nsec: 0n, incarnation: 0 });
  }

  cpuPolicy(): Promise<CpuPolicy> {
    return Promise.resolve({ cpuid: new Uint8Array(0), msrs: new Uint8Array(0) });
  }
}

/**
 * The same of one that is restored (setEmulatorContext). What a stream may hold beside that, it has no
 * place for; that there is nothing of a kind is fine.
 * @throws HypervisorError UNSUPPORTED, all of them, for what is not nothing
 */
export abstract class DeviceStateOnly {
  /** The vCPUs come with the device state. */
  setHvmContext(): Promise<void> {
    return Promise.reject(unsupported('a QEMU domain has no HVM context of its own', {}));
  }

  setHvmParam({ index, value }: HvmParam): Promise<void> {
    return Promise.reject(unsupported('a QEMU domain has no HVM parameters', { index, value }));
  }

  setTscInfo({ mode }: TscInfo): Promise<void> {
    if (mode === 0) return Promise.resolve();
    return Promise.reject(unsupported('a QEMU domain knows TSC mode 0 only', { mode }));
  }

  setCpuPolicy({ cpuid, msrs }: CpuPolicy): Promise<void> {
    if (cpuid.length === 0 && msrs.length === 0) return Promise.resolve();
    const facts = { cpuid: cpuid.length, msrs: msrs.length };
    return Promise.reject(unsupported('a QEMU domain has no CPU policy of its own', facts));
  }
}
