// What PV and HVM guests on x86 have in common: time stamp counter and CPU policy.

import type { CpuPolicy } from '../hypervisor/port.js';
import { RecordType } from '../stream/format.js';
import type { StreamRecord } from '../stream/record.js';
import { decodeTscInfo, encodeTscInfo } from '../stream/records/tsc.js';
import type { MissingStaticData, RestoreOpsContext, SaveOpsContext } from './ops.js';

export const NO_CPU_POLICY: CpuPolicy = { cpuid: new Uint8Array(0), msrs: new Uint8Array(0) };

export async function writeX86TscInfo(context: SaveOpsContext): Promise<void> {
  await context.writeRecord(RecordType.X86_TSC_INFO, encodeTscInfo(await context.domain.tscInfo()));
}

export async function handleX86TscInfo(context: RestoreOpsContext, record: StreamRecord): Promise<void> {
  await context.domain.setTscInfo(decodeTscInfo(record));
}

/** A policy that the hypervisor does not have is not written: the other side is told that it is missing. */
export async function writeX86CpuPolicyRecords(context: SaveOpsContext): Promise<void> {
  const { cpuid, msrs } = await context.domain.cpuPolicy();
  if (cpuid.length > 0) await context.writeRecord(RecordType.X86_CPUID_POLICY, cpuid);
  if (msrs.length > 0) await context.writeRecord(RecordType.X86_MSR_POLICY, msrs);
}

export function handleX86CpuidPolicy(context: RestoreOpsContext, record: StreamRecord): void {
  context.cpuPolicy = { ...context.cpuPolicy, cpuid: record.body.slice() };
}

export function handleX86MsrPolicy(context: RestoreOpsContext, record: StreamRecord): void {
  context.cpuPolicy = { ...context.cpuPolicy, msrs: record.body.slice() };
}

/** Gives the domain the policy that has come. */
export async function x86StaticDataComplete(context: RestoreOpsContext): Promise<MissingStaticData> {
  const { cpuid, msrs } = context.cpuPolicy;
  if (cpuid.length > 0 || msrs.length > 0) await context.domain.setCpuPolicy(context.cpuPolicy);
  return { cpuid: cpuid.length === 0, msr: msrs.length === 0 };
}
