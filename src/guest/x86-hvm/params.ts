// The HVM parameters that a restore must know by name. Source: Xen's public header hvm/params.h.

export const HvmParamIndex = {
  STORE_PFN: 1n,
  STORE_EVTCHN: 2n,
  PAE_ENABLED: 4n,
  IOREQ_PFN: 5n,
  BUFIOREQ_PFN: 6n,
  CONSOLE_PFN: 17n,
  CONSOLE_EVTCHN: 18n,
} as const;

const FRAMES: ReadonlySet<bigint> = new Set([
  HvmParamIndex.STORE_PFN,
  HvmParamIndex.IOREQ_PFN,
  HvmParamIndex.BUFIOREQ_PFN,
  HvmParamIndex.CONSOLE_PFN,
]);

/** True if the value is a frame of the domain that a restore uses itself. */
export function isFrameParam(index: bigint): boolean {
  return FRAMES.has(index);
}
