// What a benchmark reports. A number of this machine says little; its ratio to a reference that was measured in the
// same run says what the code costs.

export interface BenchResult {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  readonly reference?: { readonly name: string; readonly value: number };
  /** value / reference.value */
  readonly ratio?: number;
  /** What the value or the ratio shall be, in words. */
  readonly target?: string;
}
