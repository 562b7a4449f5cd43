/** Drawn in the colour of the text around them. */
const PATHS = {
  jobs: "M4 6h16M4 12h16M4 18h10",
  try: "M4 16l4.500-5 4 4 3-3 4.500 5M4 5h16v14H4zM15.500 9.500h.01",
  submit: "M12 19V6M6 11l6-6 6 6M5 21h14",
  schedules: "M12 7v5l3.500 2M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18z",
  fleet: "M4 4h16v6H4zM4 14h16v6H4zM8 7h.01M8 17h.01",
  picture: "M4 5h16v14H4zM4 16l4.500-5 4 4 3-3 4.500 5",
  close: "M6 6l12 12M18 6L6 18",
  arrow: "M5 12h14M13 6l6 6-6 6",
  check: "M5 12.500l4.500 4.500L19 7.500",
};

export type IconName = keyof typeof PATHS;

export const Icon = ({ name }: { name: IconName }) => (
  <svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
    <path d={PATHS[name]} />
  </svg>
);
