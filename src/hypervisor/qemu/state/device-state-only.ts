// All state of a QEMU domain is in its device state (setEmulatorContext). What a stream may hold beside that, it has no
// place for; that there is nothing of a kind is fine.

import type { Facts } from '../../../errors.js';
import { HypervisorError, type CpuPolicy, type HvmParam, type TscInfo } from '../../port.js';

/** @throws HypervisorError UNSUPPORTED, all of them, for what is not nothing */
export abstract class DeviceStateOnly {
  /** The vCPUs come with the device state. */
  setHvmContext(): Promise<void> {
    return unsupported('a QEMU domain has no HVM context of its own', {});
  }

  setHvmParam({ index, value }: HvmParam): Promise<void> {
    return unsupported('a QEMU domain has no HVM parameters', { index, value });
  }

  setTscInfo({ mode }: TscInfo): Promise<void> {
    if (mode === 0) return Promise.resolve();
    return unsupported('a QEMU domain knows TSC mode 0 only', { mode });
  }

  setCpuPolicy({ cpuid, msrs }: CpuPolicy): Promise<void> {
    if (cpuid.length === 0 && msrs.length === 0) return Promise.resolve();
    const facts = { cpuid: cpuid.length, msrs: msrs.length };
    return unsupported('a QEMU domain has no CPU policy of its own', facts);
  }
}

function unsupported(message: string, facts: Facts): Promise<never> {
  return Promise.reject(new HypervisorError('UNSUPPORTED', message, facts));
}
