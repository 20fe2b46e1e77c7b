// What PV and HVM guests on x86 have in common: the form of the stream, time stamp counter and CPU policy.

import type { CpuPolicy } from '../hypervisor/port.js';
import { PAGE_SIZE, RecordType, domainTypeName } from '../stream/format.js';
import type { StreamRecord } from '../stream/record.js';
import { decodeTscInfo, encodeTscInfo } from '../stream/records/tsc.js';
import { GuestError } from './error.js';
import type { MissingStaticData, RecordResult, RestoreOpsContext, SaveOpsContext } from './ops.js';

export const NO_CPU_POLICY: CpuPolicy = { cpuid: new Uint8Array(0), msrs: new Uint8Array(0) };

export async function writeX86TscInfo(context: SaveOpsContext): Promise<void> {
  await context.writeRecord(RecordType.X86_TSC_INFO, encodeTscInfo(await context.domain.tscInfo()));
}

/** A policy that the hypervisor does not have is not written: the other side is told that it is missing. */
export async function writeX86CpuPolicyRecords(context: SaveOpsContext): Promise<void> {
  const { cpuid, msrs } = await context.domain.cpuPolicy();
  if (cpuid.length > 0) await context.writeRecord(RecordType.X86_CPUID_POLICY, cpuid);
  if (msrs.length > 0) await context.writeRecord(RecordType.X86_MSR_POLICY, msrs);
}

/** What processX86Record() handles. */
export const X86_RECORD_TYPES = [
  RecordType.X86_TSC_INFO,
  RecordType.X86_CPUID_POLICY,
  RecordType.X86_MSR_POLICY,
] as const;

/** The records that both types of guest have; the policy is kept until the static data is complete. */
export async function processX86Record(
  context: RestoreOpsContext,
  record: StreamRecord,
): Promise<RecordResult> {
  switch (record.type) {
    case RecordType.X86_TSC_INFO:
      await context.domain.setTscInfo(decodeTscInfo(record));
      return 'processed';
    case RecordType.X86_CPUID_POLICY:
      context.cpuPolicy = { ...context.cpuPolicy, cpuid: record.body.slice() };
      return 'processed';
    case RecordType.X86_MSR_POLICY:
      context.cpuPolicy = { ...context.cpuPolicy, msrs: record.body.slice() };
      return 'processed';
    default:
      return 'RECORD_NOT_PROCESSED';
  }
}

/** @throws GuestError DOMAIN_TYPE_MISMATCH, BAD_PAGE_SIZE */
export function checkFits(context: RestoreOpsContext, type: number): void {
  const { guestType, guestPageSize, domainInfo } = context;
  const wanted = domainTypeName(type);
  if (guestType !== type) {
    const message = `the stream holds an ${domainTypeName(guestType)} domain, this one is ${wanted}`;
    const facts = { streamType: guestType, domainType: domainInfo.type };
    throw new GuestError('DOMAIN_TYPE_MISMATCH', message, facts);
  }
  if (guestPageSize !== PAGE_SIZE) {
    const message = `pages of ${guestPageSize} octets in an ${wanted} domain`;
    throw new GuestError('BAD_PAGE_SIZE', message, { pageSize: guestPageSize });
  }
}

/** Gives the domain the policy that has come. */
export async function x86StaticDataComplete(context: RestoreOpsContext): Promise<MissingStaticData> {
  const { cpuid, msrs } = context.cpuPolicy;
  if (cpuid.length > 0 || msrs.length > 0) await context.domain.setCpuPolicy(context.cpuPolicy);
  return { cpuid: cpuid.length === 0, msr: msrs.length === 0 };
}
