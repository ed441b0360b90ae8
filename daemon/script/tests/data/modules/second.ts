console.log("second");
export const second = 2;
